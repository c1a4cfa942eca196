"""Options of ``fedward-site ingest``: which table holds the labels, and what was decided about persons."""

from pathlib import Path
from typing import Annotated

import typer

from client.dicom.person_rules import PersonFrom

PlanOption = Annotated[Path | None, typer.Option(help="Study plan (TOML): finds or makes the cache for its images.")]
LabelsOption = Annotated[Path | None, typer.Option(help="Label table (CSV): key_type,key,label, or --map.")]
EncodingOption = Annotated[str, typer.Option(help="Text encoding of the label table: utf-8 or gb18030.")]
MapOption = Annotated[
    list[str] | None,
    typer.Option("--map", help="COLUMN=PatientID, COLUMN:WORD=class or segment:NAME=class; may be repeated."),
]
EraseMissingOption = Annotated[
    bool, typer.Option("--erase-missing", help="Erase records whose files are gone from the folder.")
]
PersonFromOption = Annotated[
    PersonFrom | None,
    typer.Option(help="Whom a scan without a real PatientID is about; a decision, kept with the name behind it."),
]
PlaceholderOption = Annotated[
    list[str] | None, typer.Option(help="A PatientID of this archive that stands for nobody; may be repeated.")
]
DecidedByOption = Annotated[
    str, typer.Option(help="Name of who decided --person-from, --placeholder, --whole-ultrasound.")
]
WholeUltrasoundOption = Annotated[
    bool,
    typer.Option("--whole-ultrasound", help="Take ultrasound without regions whole; a decision, with --decided-by."),
]
SamePersonsOption = Annotated[
    Path | None, typer.Option(help="Table (CSV) of merged identifiers: former_id,current_id.")
]
