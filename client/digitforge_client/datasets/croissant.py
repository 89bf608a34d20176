"""Croissant metadata of a data set in Parquet shards: a JSON-LD file for machines.

Croissant 1.0: https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

from __future__ import annotations

from typing import Any, Final

from digitforge_client.datasets import data_card
from digitforge_client.datasets.manifest import Manifest

NAME: Final = "croissant.json"

#: Prefixes of the terms. The specification requires each of them.
_CONTEXT: Final = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
} | {
    term: f"cr:{term}"
    for term in (
        "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
        "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references",
        "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
    )
}  # fmt: skip
_PARQUET: Final = "application/x-parquet"


def croissant(manifest: Manifest) -> dict[str, Any]:
    """Describe a finished data set as JSON-LD. URLs of files are relative to the file that holds it."""
    plan, names = manifest.plan, manifest.card["class_names"]
    label = _field("label", "sc:Integer", "The class that the generator was asked for. −1: it has no classes.")
    if names:
        label["references"] = {"field": {"@id": "classes/number"}}
    image = _field("image", "sc:ImageObject", "A PNG picture.")
    image["source"]["transform"] = {"jsonPath": "bytes"}
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"digitforge-{manifest.generator_id}-{plan.seed}",
        "description": f"{plan.n} labeled synthetic images, made by generator {manifest.generator_id} of digitforge "
        f"from rows {plan.start} to {plan.start + plan.n - 1} of seed {plan.seed}.",
        "citeAs": f"digitforge, generator {manifest.generator_id}, seed {plan.seed}, rows {plan.start} to "
        f"{plan.start + plan.n - 1}",
        "version": "1.0.0",  # addresses never change their images
        "keywords": ["synthetic", "image classification"],
        "distribution": [
            *(
                {
                    "@type": "cr:FileObject",
                    "@id": shard.file,
                    "name": shard.file,
                    "contentUrl": shard.file,
                    "contentSize": f"{shard.bytes} B",
                    "encodingFormat": _PARQUET,
                    "sha256": shard.sha256,
                }
                for shard in manifest.shards
            ),
            {
                "@type": "cr:FileSet",
                "@id": "shards",
                "name": "shards",
                "description": "All shards.",
                "encodingFormat": _PARQUET,
                "includes": data_card.SHARDS,
            },
        ],
        "recordSet": [
            *([_classes(names)] if names else []),
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "description": "One record per image.",
                "field": [
                    image,
                    label,
                    _field("seed", "sc:Integer", "The row seed: with generator and label, the image's address."),
                ],
            },
        ],
    }


def _classes(names: list[str]) -> dict[str, Any]:
    """The record set of the classes, with its data."""
    fields = {"number": "sc:Integer", "name": "sc:Text"}
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "The classes: what the labels mean.",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/number"},
        "field": [
            {"@type": "cr:Field", "@id": f"classes/{name}", "name": name, "dataType": dtype}
            for name, dtype in fields.items()
        ],
        "data": [{"classes/number": number, "classes/name": name} for number, name in enumerate(names)],
    }


def _field(name: str, dtype: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"images/{name}",
        "name": name,
        "description": description,
        "dataType": dtype,
        "source": {"fileSet": {"@id": "shards"}, "extract": {"column": name}},
    }
