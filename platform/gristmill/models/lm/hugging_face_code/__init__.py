"""The two files that `hugging_face.export` puts beside a model that is not a Llama."""
