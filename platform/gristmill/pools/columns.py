"""Names and types of a pool's metadata columns, in one place: DataComp's own, and ours."""

UID = "uid"
URL = "url"
TEXT = "text"
WIDTH = "original_width"
HEIGHT = "original_height"
CLIP_B32 = "clip_b32_similarity_score"
CLIP_L14 = "clip_l14_similarity_score"
FACES = "face_bboxes"
SHA256 = "sha256"
PHASH = "phash"
AESTHETIC = "aesthetic_score"
NSFW = "nsfw_score"
WEIGHT = "weight"

CLIP_SCORES = {"b32": CLIP_B32, "l14": CLIP_L14}

NUMBERS = frozenset({WIDTH, HEIGHT, CLIP_B32, CLIP_L14, AESTHETIC, NSFW, WEIGHT})
STRINGS = frozenset({UID, URL, TEXT, SHA256, PHASH})
