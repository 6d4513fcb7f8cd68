"""The front door: which layout a stranger's data has, which file belongs to which image, and what speaks against a reading.

path -> survey (every file by kind) -> forms of the annotations (evidence) -> one reader, with the pairs and splits found here -> Source

survey.py          one walk over the names                      evidence.py       what annotation files are, by a sample of them
names.py           which image a written name means             splits.py         by lists of images, or by folders
pairing.py         which annotation belongs to which image      paired.py         both together, for layouts with a file per image
yaml_splits.py     YOLO's data.yaml                             maps.py           which images are maps of others
class_folders.py   where class folders begin; doubts            labelled_table.py which column, row and image is which
shapes.py          shapes of any tool -> objects, taken by labelme.py, labelstudio.py, cvat.py and box_table.py
label_cells.py     one label in a cell or several               several_labels.py the task multilabel
tagged.py          labels of images in annotation files         unopened.py       pictures that need a package

The readers of VOC, YOLO, COCO, masks, folders, parquet, shards and names on the Hub lie beside this folder; `annotated.py` and `sources.py`
choose. A layout is chosen by the annotations that lie there, in the order of evidence.READ_FORMS, then masks, then tables, then folders.
What a reading leaves out is listed with a reason; annotations that it does not explain are a note, where they belong to images that it
uses, else a refusal in one sentence that names the option which chooses. `--layout` overrules.
"""
