"""The front door: which layout a stranger's data has, which file belongs to which image, and what speaks against a reading.

path -> survey (every file by kind) -> forms of the annotations (evidence) -> one reader, with the pairs and splits found here -> Source

survey.py          one walk over the names                      evidence.py       what annotation files are, by a sample of them
names.py           which image a written name means             splits.py         by lists of images, or by folders
split_files.py     splits in JSON, tables and ids               split_folders.py  seg_train/ and the like; splits without class folders
pairing.py         which annotation belongs to which image      paired.py         both together, for layouts with a file per image
yaml_splits.py     YOLO's data.yaml                             maps.py           which images are maps of others
class_folders.py   where class folders begin                    folder_doubts.py  what speaks against folders as classes
image_files.py     folders, tables or tags: which it is         containers.py     archives, arrays, tables of pixels: named
labelled_table.py  which column, row and image is which         image_rows.py     several rows of one image
label_cells.py     one label in a cell or several               several_labels.py the task multilabel
tagged.py          labels of images in annotation files         unopened.py       pictures that need a package
shapes.py          shapes of any tool -> objects, taken by labelme.py, labelstudio.py, cvat.py, via.py, json_boxes.py (CreateML, BDD100K),
                   line_boxes.py (KITTI, DOTA) and box_table.py
object_folders.py  a folder per image with a mask per object    coco_fields.py    fields of COCO's JSON as tools write them

The readers of VOC, YOLO, COCO, masks, folders, parquet, shards and names on the Hub lie beside this folder; `annotated.py` and `sources.py`
choose. A layout is chosen by the annotations that lie there, in the order of evidence.READ_FORMS, then masks, then tables, then folders.
What a reading leaves out is listed with a reason; annotations that it does not explain are a note, where they belong to images that it
uses, else a refusal in one sentence that names the option which chooses. `--layout` overrules.
"""
