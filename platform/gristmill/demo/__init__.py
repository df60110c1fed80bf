"""The embedded data: drawings, the noisy pool made of them, and the sets to test on."""
