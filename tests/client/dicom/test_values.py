"""Faults that gave wrong numbers in silence: each input has one true value, or one code."""

from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from client.dicom.instance import read_images, verdict
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode

NAMES = Pseudonyms(b"k" * 32)
SIDE = 32
RAMP = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
GREY = {"intensity": "luminance", "window_hu": ()}
MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2"
RAW_MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2.1"


def values_of(content: bytes, settings) -> np.ndarray:
    """Values as the cache gives them back: HU, or units of the image."""
    [(facts, levels)] = read_images(content, settings, NAMES)
    span = facts.intensity_high - facts.intensity_low
    return levels * (span / 65535) + facts.intensity_low


def code_of(content: bytes, settings) -> RejectCode | None:
    return verdict(lambda: list(read_images(content, settings, NAMES)) and None)


def edited(content: bytes, edit) -> bytes:
    dataset = dcmread(BytesIO(content))
    edit(dataset)
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=False)
    return out.getvalue()


def compressed(content: bytes, stream: bytes, syntax: str) -> bytes:
    def edit(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True

    return edited(content, edit)


CODECS = {
    "JPEG lossless": (uid.JPEGLosslessSV1, lambda words: imagecodecs.ljpeg_encode(words, bitspersample=16)),
    "JPEG-LS": (uid.JPEGLSLossless, imagecodecs.jpegls_encode),
    "JPEG 2000": (
        uid.JPEG2000Lossless,
        lambda words: imagecodecs.jpeg2k_encode(words, level=0, reversible=True, codecformat="J2K"),
    ),
}


@pytest.mark.parametrize("codec", ["native", "RLE", "big endian", *CODECS])
@pytest.mark.parametrize("signed", [False, True])
def test_every_codec_clears_the_bits_above_those_stored_and_reads_the_sign_alike(codec, signed, scan, settings_with):
    """Twelve bits in words of sixteen; an old overlay lies in the highest bit of some words."""
    words = (RAMP * 4) & 0x0FFF
    expected = np.where(words >= 2048, words - 4096.0, words) if signed else words.astype(float)
    words[::3] |= 0x8000
    content = scan(words, form={"bits_stored": 16, "intercept": 0.0, "syntax": _syntax(codec)})
    if codec in CODECS:
        content = compressed(content, CODECS[codec][1](words), CODECS[codec][0])
    content = edited(content, lambda d: d.update({"BitsStored": 12, "HighBit": 11, "PixelRepresentation": int(signed)}))
    assert np.abs(values_of(content, settings_with(window_hu=(0.0, 10000.0))) - expected).max() < 0.1


def _syntax(codec: str) -> str:
    return {"RLE": "rle", "big endian": "big_endian"}.get(codec, "explicit")


@pytest.mark.parametrize("syntax", ["explicit", "rle", "big_endian"])
def test_a_padding_value_above_the_bits_stored_is_found_in_the_whole_words(syntax, scan, changed, settings_with):
    """Twelve bits stored, padding 63536 (-2000 in sixteen): masked, it would be bone all around the patient."""
    frame = RAMP + 100
    frame[:4] = 63536
    content = scan(frame, form={"bits_stored": 16, "syntax": syntax})
    content = changed(content, BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    values = values_of(content, settings_with())
    assert values[:4].max() == pytest.approx(values[4:].min(), abs=0.1)
    assert values.max() == pytest.approx(RAMP.max() + 100 - 1024, abs=0.1)


def rescaled_as(unit: str):
    return lambda dataset: setattr(dataset, "RescaleType", unit)


def without_rescale(dataset: Dataset) -> None:
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        delattr(dataset, keyword)


NOT_HOUNSFIELD = {
    "no rescale": without_rescale,
    "only a slope": lambda d: d.__delattr__("RescaleIntercept"),
    "unspecified units": rescaled_as("US"),
    "milligrams of iodine": rescaled_as("MGML"),
    "modified Hounsfield units": rescaled_as("HU_MOD"),
    "a picture in colour": lambda d: d.update(
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8}
        | {"BitsStored": 8, "HighBit": 7, "PixelData": bytes(3 * d.Rows * d.Columns)}
    ),
    "a map of a material": lambda d: setattr(d, "ImageType", ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]),
}


@pytest.mark.parametrize("kind", NOT_HOUNSFIELD)
def test_a_ct_window_takes_hounsfield_units_only(kind, scan, settings_with):
    content = edited(scan(), NOT_HOUNSFIELD[kind])
    assert code_of(content, settings_with()) is RejectCode.NOT_HOUNSFIELD
    assert code_of(content, settings_with(intensity="percentiles", window_hu=())) is None, "another rule may take it"


def test_a_ct_image_that_names_no_unit_is_in_hounsfield_units(scan, settings_with):
    content = edited(scan(RAMP), lambda d: d.__delattr__("RescaleType"))
    assert np.abs(values_of(content, settings_with()) - (RAMP - 1024.0)).max() < 0.1


def test_a_window_for_hounsfield_units_takes_no_magnetic_resonance(scan, settings_with):
    content = scan(form={"modality": "MR"})
    assert code_of(content, settings_with(modalities=("CT", "MR"))) is RejectCode.NOT_HOUNSFIELD


def enhanced(*own: tuple[float, float] | None, shared: tuple[float, float] | None):
    def group(rescale: tuple[float, float] | None) -> Dataset:
        item, holder = Dataset(), Dataset()
        if rescale:
            item.RescaleSlope, item.RescaleIntercept, item.RescaleType = *rescale, "HU"
            holder.PixelValueTransformationSequence = [item]
        return holder

    def edit(dataset: Dataset) -> None:
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
        dataset.SharedFunctionalGroupsSequence = [group(shared)]
        dataset.PerFrameFunctionalGroupsSequence = [group(rescale) for rescale in own]

    return edit


GROUPS = {
    "the frame's own group first": (enhanced((2.0, -1000.0), shared=(1.0, 0.0)), 2.0, -1000.0),
    "then the shared group": (enhanced(None, shared=(3.0, -7.0)), 3.0, -7.0),
    "then the top level": (enhanced(None, shared=None), 1.0, -1024.0),
}


@pytest.mark.parametrize("case", GROUPS)
def test_a_rescale_is_looked_for_from_the_frame_outwards(case, scan, settings_with):
    edit, slope, intercept = GROUPS[case]
    values = values_of(edited(scan(RAMP), edit), settings_with(window_hu=(0.0, 8000.0)))
    assert np.abs(values - (RAMP * slope + intercept)).max() < 0.1


STEPS = np.arange(256)
PALETTES = {
    "8 bits, packed": (8, STEPS.astype("u1").tobytes()),
    "8 bits, each in a word": (8, STEPS.astype("<u2").tobytes()),
    "16 bits, only the low byte used": (16, STEPS.astype("<u2").tobytes()),
    "16 bits": (16, (STEPS * 257).astype("<u2").tobytes()),
}


@pytest.mark.parametrize("kind", PALETTES)
def test_the_width_of_a_palette_comes_from_its_data(kind, scan, settings_with):
    bits, data = PALETTES[kind]
    grey = (RAMP % 256).astype(np.uint8)

    def edit(dataset: Dataset) -> None:
        dataset.SOPClassUID, dataset.PhotometricInterpretation = "1.2.840.10008.5.1.4.1.1.2", "PALETTE COLOR"
        for colour in ("Red", "Green", "Blue"):
            setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, bits])
            setattr(dataset, f"{colour}PaletteColorLookupTableData", data)
        for tag in (0x00281101, 0x00281102, 0x00281103):
            dataset[tag].VR = "US"

    content = edited(scan(grey, form={"bits_stored": 8}), edit)
    assert np.abs(values_of(content, settings_with(**GREY)) - grey).max() < 0.01


def test_a_modality_table_has_the_range_of_its_own_descriptor(scan, settings_with):
    """Eight bits stored, looked up into twelve: turned about the twelve, never cut at 255."""
    grey = (RAMP % 256).astype(np.uint8)

    def edit(dataset: Dataset) -> None:
        without_rescale(dataset)
        item = Dataset()
        item.add_new(0x00283002, "US", [256, 0, 12])
        item.add_new(0x00283006, "US", (STEPS * 16).tolist())
        dataset.ModalityLUTSequence = [item]

    for inverted in (False, True):
        content = edited(scan(grey, form={"modality": "CR", "bits_stored": 8, "monochrome1": inverted}), edit)
        expected = grey * 16.0
        values = values_of(content, settings_with(modalities=("CR",), **GREY))
        assert np.abs(values - (4095 - expected if inverted else expected)).max() < 0.1


NOISE = np.random.default_rng(1).integers(0, 4096, (SIDE, SIDE)).astype(np.uint16)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kept", [0.4, 0.95])
def test_a_compressed_stream_that_was_cut_is_refused_instead_of_completed(codec, kept, scan, settings_with):
    syntax, encode = CODECS[codec]
    stream = encode(NOISE)
    assert code_of(compressed(scan(NOISE), stream, syntax), settings_with()) is None
    cut = compressed(scan(NOISE), stream[: int(len(stream) * kept)], syntax)
    assert code_of(cut, settings_with()) in (RejectCode.CODESTREAM, RejectCode.DECODE)


def test_jpeg_ls_that_one_of_two_libraries_cannot_read_is_read_by_the_other(scan, settings_with, monkeypatch):
    content = compressed(scan(NOISE), CODECS["JPEG-LS"][1](NOISE), uid.JPEGLSLossless)
    expected = NOISE - 1024.0

    def fails(*_arguments):
        raise RuntimeError

    for name in ("client.dicom.decode.imagecodecs.jpegls_decode", "client.dicom.decode.jpeg_ls.decode_pixel_data"):
        with monkeypatch.context() as patch:
            patch.setattr(name, fails)
            assert np.abs(values_of(content, settings_with(window_hu=(1000.0, 8000.0))) - expected).max() < 0.1


def mammogram(scan, *, raw: bool = False, **attributes) -> bytes:
    def edit(dataset: Dataset) -> None:
        dataset.SOPClassUID = RAW_MAMMOGRAM if raw else MAMMOGRAM
        dataset.update({"PresentationLUTShape": "IDENTITY", **attributes})

    return edited(scan(RAMP, form={"modality": "DX", "bits_stored": 12, "intercept": 0.0}), edit)


MG = {"modalities": ("MG",), **GREY}


def test_one_exposure_stored_raw_and_made_for_reading_counts_once(scan, settings_with):
    pair = (mammogram(scan), mammogram(scan, raw=True, PixelIntensityRelationshipSign=-1))
    for_reading, measured = settings_with(**MG), settings_with(**MG, presentation="for_processing")
    assert [code_of(content, for_reading) for content in pair] == [None, RejectCode.PRESENTATION]
    assert [code_of(content, measured) for content in pair] == [RejectCode.PRESENTATION, None]


SIGNS = {
    "more X-rays are lower values": ({"PixelIntensityRelationshipSign": -1}, RAMP.astype(float)),
    "more X-rays are higher values": ({"PixelIntensityRelationshipSign": 1}, 4095.0 - RAMP),
    "whatever the display's polarity": (
        {"PixelIntensityRelationshipSign": 1, "PhotometricInterpretation": "MONOCHROME1"},
        4095.0 - RAMP,
    ),
}


@pytest.mark.parametrize("case", SIGNS)
def test_dense_tissue_is_light_in_every_raw_picture(case, scan, settings_with):
    attributes, expected = SIGNS[case]
    settings = settings_with(**MG, presentation="for_processing")
    assert np.abs(values_of(mammogram(scan, raw=True, **attributes), settings) - expected).max() < 0.1


def test_a_raw_picture_that_hides_its_polarity_is_refused(scan, settings_with):
    settings = settings_with(**MG, presentation="for_processing")
    assert code_of(mammogram(scan, raw=True, PixelIntensityRelationshipSign=0), settings) is RejectCode.POLARITY


def table(bits: int) -> list[Dataset]:
    item = Dataset()
    item.add_new(0x00283002, "US", [1024, 0, bits])
    item.add_new(0x00283006, "US", [(1023 - i) * 2 for i in range(1024)])
    return [item]


LOOKS = {
    "a linear window": (
        {"WindowCenter": "500.5", "WindowWidth": "401"},
        np.clip((RAMP - 500.0) / 400 + 0.5, 0, 1),
    ),
    "a sigmoid": (
        {"WindowCenter": "500", "WindowWidth": "400", "VOILUTFunction": "SIGMOID"},
        1 / (1 + np.exp(-4 * (RAMP - 500.0) / 400)),
    ),
    "a table": ({"VOILUTSequence": table(11)}, (1023.0 - RAMP) * 2 / 2047),
    "an inverse display": (
        {"WindowCenter": "500.5", "WindowWidth": "401", "PresentationLUTShape": "INVERSE"},
        1 - np.clip((RAMP - 500.0) / 400 + 0.5, 0, 1),
    ),
}


@pytest.mark.parametrize("case", LOOKS)
def test_a_plan_that_asks_for_it_gets_the_files_own_look(case, scan, settings_with):
    attributes, expected = LOOKS[case]
    settings = settings_with(modalities=("MG",), intensity="voi_lut", window_hu=())
    assert np.abs(values_of(mammogram(scan, **attributes), settings) - expected).max() < 1e-3


def test_an_image_without_a_window_of_its_own_is_refused_where_the_plan_asks_for_it(scan, settings_with):
    settings = settings_with(modalities=("MG",), intensity="voi_lut", window_hu=())
    assert code_of(mammogram(scan), settings) is RejectCode.VOI_LUT
    assert code_of(mammogram(scan, WindowCenter="5", WindowWidth="0"), settings) is RejectCode.VOI_LUT


@pytest.mark.parametrize("value", ["1.2.840.0551.20", "1.2.000.1"])
def test_an_identifier_with_a_leading_zero_is_only_hashed_and_let_pass(value, scan, settings_with):
    content = edited(scan(), lambda d: d.__setitem__("StudyInstanceUID", _plain_uid(value)))
    assert code_of(content, settings_with()) is None


def _plain_uid(value: str):
    dataset = Dataset()
    dataset.StudyInstanceUID = value
    return dataset["StudyInstanceUID"]


@pytest.mark.parametrize(
    "changes",
    [
        {"presentation": "for_processing"},
        {"part": "last"},
        {"intensity": "voi_lut", "window_hu": (), "volume": True},
    ],
)
def test_a_setting_that_would_have_no_effect_is_refused(changes, settings_with):
    with pytest.raises(ValueError, match=r"meaning only|is for 2-D"):
        settings_with(**changes)
