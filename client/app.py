"""The ClientApp: one action for each message of a round, no default action, and no way around the outbox.

Flower's run config is the coordinator's and is never read. The site's folder comes from the node's own configuration.
Text of exceptions stays here: whatever goes wrong, the server sees one fixed code.
"""

import logging
import os
import time

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when Flower is imported
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client.site import site_at
from common.faults import fault_without_text
from common.flower.messages import Hello, from_content, hello_answer, read_hello_question, to_content
from common.flower.objects import LARGEST_ARRAY_BYTES
from common.secagg.stages import Kind

SITE_FOLDER = "site-folder"  # key of the node's configuration
FAULT_CODE = 1001  # the one code for every fault that is no refusal of the protocol

_log = logging.getLogger("fedward.site")
app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say which site this is and which code it runs."""
    try:
        nonce = read_hello_question(message.content)
        site = site_at(str(context.node_config[SITE_FOLDER]))
        return Message(hello_answer(Hello(site.site_id, site.hello()), nonce), reply_to=message)
    except Exception as error:  # noqa: BLE001 (the last net: its text must not travel)
        return _fault(message, error)


@app.train("order")
def order(message: Message, context: Context) -> Message:
    """ORDER and model: check, reserve, train; answer KEYS."""
    return _answer(Kind.ORDER, message, context)


@app.query("keylist")
def keylist(message: Message, context: Context) -> Message:
    """KEYLIST: everybody's keys; answer SHARES."""
    return _answer(Kind.KEYLIST, message, context)


@app.query("forward")
def forward(message: Message, context: Context) -> Message:
    """FORWARD: the shares sealed for this site; answer MASKED."""
    return _answer(Kind.FORWARD, message, context)


@app.query("survivors")
def survivors(message: Message, context: Context) -> Message:
    """SURVIVORS: whose vectors are in the sum; answer CONSISTENT."""
    return _answer(Kind.SURVIVORS, message, context)


@app.query("certificate")
def certificate(message: Message, context: Context) -> Message:
    """CERTIFICATE: enough sites signed the same survivors; answer UNMASK."""
    return _answer(Kind.CERTIFICATE, message, context)


@app.query("result")
def result(message: Message, context: Context) -> Message:
    """RESULT: digest of the new model; answer RECORDED."""
    return _answer(Kind.RESULT, message, context)


def _answer(kind: Kind, message: Message, context: Context) -> Message:
    try:
        site = site_at(str(context.node_config[SITE_FOLDER]))
        # an order's model has arrived already; the session compares its size with the plan's before it looks inside,
        # and an order of no approved plan is told so, whatever comes with it
        most = LARGEST_ARRAY_BYTES if kind is Kind.ORDER else 0
        received = from_content(message.content, max_payload_bytes=most)
        message.content = RecordDict()  # a model is held by its view alone, which goes when it is loaded
        packet = site.answer(kind, received.message, received.payload)
        if packet.delay_s > 0:  # to sleep for no time at all gives the processor away: a millisecond where it is busy
            time.sleep(packet.delay_s)  # the reply's time must not tell how long training took
        return Message(to_content(packet, received.nonce), reply_to=message)
    except Exception as error:  # noqa: BLE001 (the last net: its text must not travel)
        return _fault(message, error)


def _fault(message: Message, error: Exception) -> Message:
    _log.error("a message met %s; the server sees code %d", fault_without_text(error), FAULT_CODE)
    return Message(Error(code=FAULT_CODE, reason="fault"), reply_to=message)
