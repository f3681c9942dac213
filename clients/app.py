"""The Flower ClientApp, which passes messages on to the node's pool of clients."""

import json
from dataclasses import asdict
from typing import Any, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from clients import apart, masked, pool
from fedsi.experiment import Experiment
from fedsi.kernels.cpu.product_choice import missing_instructions
from fedsi.messages import (
    ARRAY_FORMAT,
    ARRAYS,
    VALUES,
    Describe,
    Described,
    Estimate,
    Evaluate,
    FetchedVocabulary,
    FetchVocabulary,
    Personalise,
    Resolve,
    Resolved,
    Reveal,
    TakeInventory,
    TakenInventory,
    Train,
    TrainPooled,
    array_bytes,
    array_of_bytes,
    from_parts,
    to_parts,
)

POPULATION = "population"
"""Key in the node's configuration: the folder of the population that this node hosts."""

app = ClientApp()

_Request = TypeVar("_Request")


@app.query()
def answer_describe(message: Message, context: Context) -> Message:
    """Reply with the description of this node's population."""
    request = _read(Describe, message)
    folder = _folder(context)
    description = pool.population_of(folder, request.experiment).description
    shard = pool.shard_of_node(folder)
    missing = missing_instructions(Experiment.from_toml(request.experiment).client)
    answer = Described(json.dumps(asdict(description)), shard.index, shard.count, missing)
    return _reply(answer, message)


@app.query("inventory")
def take_inventory(message: Message, context: Context) -> Message:
    """Reply with the inventory of this node's model."""
    found = pool.inventory_of(_read(TakeInventory, message), _folder(context))
    return _reply(TakenInventory(json.dumps(asdict(found))), message)


@app.query("vocabulary")
def answer_vocabulary(message: Message, context: Context) -> Message:
    """Reply with the vocabulary of this node's population."""
    request = _read(FetchVocabulary, message)
    vocabulary = pool.population_of(_folder(context), request.experiment).vocabulary()
    answer = FetchedVocabulary(vocabulary.file_name, json.dumps(vocabulary.file_text()))
    return _reply(answer, message)


@app.query("resolve")
def answer_resolve(message: Message, context: Context) -> Message:
    """Reply with the clients of this node's population that have some ids."""
    request = _read(Resolve, message)
    population = pool.population_of(_folder(context), request.experiment)
    return _reply(Resolved(population.find(json.loads(request.names))), message)


@app.query("estimate")
def answer_estimate(message: Message, context: Context) -> Message:
    """Reply with the work of some clients."""
    return _reply(pool.estimate_block(_read(Estimate, message), _folder(context)), message)


@app.query("reveal")
def answer_reveal(message: Message, _context: Context) -> Message:
    """Reply with the shares that clients of a masked round hold."""
    return _reply(masked.reveal(_read(Reveal, message)), message)


@app.train()
def answer_train(message: Message, context: Context) -> Message:
    """Train the clients that the server assigned to this node."""
    request = _read(Train, message)
    folder, train = _folder(context), pool.train_block
    if len(request.mask_key):
        train = masked.train_masked
    elif pool.sends_updates(request.experiment, folder):
        train = apart.train_apart
    return _reply(train(request, folder), message)


@app.train("pooled")
def train_pool(message: Message, context: Context) -> Message:
    """Train one learner on the pooled examples of the clients that the server named."""
    return _reply(pool.train_together(_read(TrainPooled, message), _folder(context)), message)


@app.evaluate()
def answer_evaluate(message: Message, context: Context) -> Message:
    """Evaluate the clients that the server assigned to this node."""
    return _reply(pool.evaluate_block(_read(Evaluate, message), _folder(context)), message)


@app.evaluate("personalise")
def personalise(message: Message, context: Context) -> Message:
    """Fine-tune and evaluate the clients that the server assigned to this node."""
    return _reply(pool.personalise_block(_read(Personalise, message), _folder(context)), message)


def _folder(context: Context) -> str:
    return str(context.node_config.get(POPULATION, ""))


def _read(kind: type[_Request], message: Message) -> _Request:
    records = message.content
    received = records.array_records[ARRAYS].items()
    arrays = {name: array_of_bytes(array.data) for name, array in received}
    return from_parts(kind, arrays, records.config_records[VALUES])


def _reply(answer: Any, message: Message) -> Message:
    arrays, values = to_parts(answer)
    records = RecordDict(
        {
            ARRAYS: ArrayRecord({name: _array(value) for name, value in arrays.items()}),
            VALUES: ConfigRecord(values),
        }
    )
    return Message(records, reply_to=message)


def _array(value: NDArray[Any]) -> Array:
    return Array(str(value.dtype), value.shape, ARRAY_FORMAT, array_bytes(value))
