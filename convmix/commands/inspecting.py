"""How a data set is read, before anything is trained: inspect."""

from typing import Literal

Format = Literal["text", "json"]


def inspect(
    data: str,
    /,
    *,
    format: Format = "text",
    layout: str | None = None,
    task: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    in_chans: int | None = None,
) -> None:
    """Say how a data set is read: layout, task, classes, splits, what is left out and why. Trains nothing and decodes nothing.

    Parameters
    ----------
    data:
        As `train` takes it.
    format:
        text or json.
    layout:
        How it is read, where more than one way is possible: folders, table, parquet, shards, voc, yolo, coco, labelme, labelstudio, cvat,
        via, createml, bdd100k, kitti, dota, masks or hub.
    task:
        classify, multilabel, detect, instances or segment; what the labels are where it is left out.
    image_column:
        Table column with the image or its path.
    label_column:
        Table column with the class.
    in_chans:
        Channels of the images; 3 where it is left out.
    """
    from json import dumps

    from convmix.data.inspection import inspect as inspect_data
    from convmix.data.inspection import lines, table_of_counts

    asked: dict[str, object] = {
        "layout": layout, "task": task, "image_column": image_column, "label_column": label_column, "in_chans": in_chans,
    }  # fmt: skip
    found = inspect_data(data, **{key: value for key, value in asked.items() if value is not None})
    if format == "json":
        print(dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    text = lines(found)
    counts = table_of_counts(found)
    print("\n".join([*text, *([""] if counts else []), *counts, "", f"train with: {found.train_command}"]))
