"""Names and types of a pool's metadata columns, in one place (DataComp's own)."""

UID = "uid"
URL = "url"
TEXT = "text"
WIDTH = "original_width"
HEIGHT = "original_height"
CLIP_B32 = "clip_b32_similarity_score"
CLIP_L14 = "clip_l14_similarity_score"
FACES = "face_bboxes"
SHA256 = "sha256"

CLIP_SCORES = {"b32": CLIP_B32, "l14": CLIP_L14}

NUMBERS = frozenset({WIDTH, HEIGHT, CLIP_B32, CLIP_L14})
STRINGS = frozenset({UID, URL, TEXT, SHA256})
