"""Secure aggregation on the server: from a sum of masked vectors to the sum of the vectors.

The server has the masked sum, the clients' public keys and their outcomes. It asks survivors for
shares of one secret of every client: the own seed of a survivor, or the private key of a client
that dropped out after the masks were agreed. So it can remove the masks that did not cancel, and no
others. Bonawitz et al. (arXiv 1611.04482); ``fedsi.sums.secure`` has the parts.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.messages import Outcome, Reveal, Revealed
from fedsi.seeds import Purpose, generator
from fedsi.sums.secure.masked_round import MaskedRound, sign_of
from fedsi.sums.secure.masks import SECRET_BYTES, add_streams, agreed_seed, public_key
from fedsi.sums.secure.shares import SHARE_BYTES, reconstructed
from fedsi.sums.totals import from_counts
from server.aggregation import Aggregate
from server.blocks import Job, answers
from server.nodes import NodesError
from server.replies import ReplyError, check_revealed, check_unmasked

Ids = NDArray[np.int64]


def refuse_between_machines(experiment: Experiment, engine: str) -> None:
    """Refuse secure aggregation on an engine whose users would take it for protection.

    Raises:
        UserError: The nodes are deployed.
    """
    if experiment.privacy.secure_aggregation and engine == "deployed":
        raise UserError(
            "privacy.secure_aggregation is a simulation: all masks follow from a key that the "
            "server draws, so between machines it would protect nobody; run it with another "
            "--engine, or set privacy.secure_aggregation=false"
        )


def masked_round(
    experiment: Experiment, participants: Ids, round_number: int, attempt: int = 0
) -> MaskedRound | None:
    """Return the masked round of a cohort; None without secure aggregation.

    The masks follow from the seed, or with ``privacy.secure_noise`` from the operating system's
    entropy. They cancel, so no bit of the model depends on them.

    Args:
        experiment: The configuration.
        participants: The clients that were asked, those that drop out included.
        round_number: The round, from 1.
        attempt: Earlier attempts of the same round; each has masks of its own.
    """
    if not experiment.privacy.secure_aggregation:
        return None
    secure = experiment.privacy.secure_noise
    seeded = generator(experiment.seed, Purpose.MASK, round_number, attempt)
    key = os.urandom(SECRET_BYTES) if secure else seeded.bytes(SECRET_BYTES)
    return MaskedRound(key, participants, experiment.privacy.mask_neighbours)


def unmasked(
    grid: Grid,
    nodes: Sequence[int],
    experiment: Experiment,
    masked: MaskedRound,
    cohort: Ids,
    aggregate: Aggregate,
    clip_norm: float,
) -> Aggregate:
    """Return the exact sums of a round, and the totals of its clients' counts.

    Args:
        grid: Flower's connection to the nodes.
        nodes: Their ids.
        experiment: The configuration.
        masked: The masked round.
        cohort: The clients that were trained, in the order of their rows.
        aggregate: The masked sums, and rows that have nothing but outcomes.
        clip_norm: Largest L2 norm of a client's update; infinite without clipping.

    Raises:
        NodesError: Too many clients dropped out to remove the masks, or the sums are beyond what
            the clients may add.
    """
    survivors = np.sort(cohort[aggregate.column("outcome") == Outcome.AGGREGATED])
    parts = [aggregate.sums, *aggregate.returned.values(), aggregate.counts]
    vector = np.concatenate(parts)
    if len(survivors):
        secrets = _secrets(grid, nodes, experiment, masked, survivors)
        add_streams(vector, _left_over(masked, set(survivors.tolist()), secrets))
    sums, *others = np.split(vector, np.cumsum([len(part) for part in parts])[:-1])
    returned = dict(zip(aggregate.returned, others[:-1], strict=True))
    totals = from_counts(others[-1])
    try:
        check_unmasked([sums, *returned.values()], totals, experiment, len(survivors), clip_norm)
    except ReplyError as error:
        raise NodesError(
            f"the masked sum of the round is invalid: {error}; it does not show which node is wrong"
        ) from None
    return replace(aggregate, sums=sums, returned=returned, counts=others[-1], totals=totals)


def _left_over(
    masked: MaskedRound, survivors: set[int], secrets: dict[int, bytes]
) -> list[tuple[bytes, int]]:
    """Return the streams that did not cancel in the sum of the survivors, with opposite signs."""
    streams = []
    for client, secret in secrets.items():
        if client in survivors:
            streams.append((secret, -1))
            continue
        if public_key(secret) != masked.public_keys[client]:
            raise NodesError(f"the shares of client {client} are not those of its private key")
        for other in masked.graph[client]:
            if other in survivors:
                seed = agreed_seed(secret, masked.public_keys[other])
                streams.append((seed, -sign_of(other, client)))
    return streams


def _secrets(
    grid: Grid, nodes: Sequence[int], experiment: Experiment, masked: MaskedRound, survivors: Ids
) -> dict[int, bytes]:
    """Return one secret of each client, from the shares that the survivors hold.

    Raises:
        NodesError: Fewer survivors than needed hold shares of a client's secret.
    """
    shares = _shares(grid, nodes, experiment, masked, survivors)
    alive, secrets = set(survivors.tolist()), {}
    for client in masked.graph:
        if client not in alive and alive.isdisjoint(masked.graph[client]):
            continue  # none of its masks is in the sum
        found = shares[client]
        if len(found) < masked.threshold:
            raise NodesError(
                f"the masks of the round cannot be removed: {len(found)} clients are left with "
                f"shares of the secrets of client {client}, and {masked.threshold} are needed; "
                "raise privacy.mask_neighbours if many clients drop out"
            )
        chosen = dict(sorted(found.items())[: masked.threshold])
        try:
            secrets[client] = reconstructed(chosen, SECRET_BYTES)
        except ValueError as error:
            raise NodesError(f"{error} (client {client})") from None
    return secrets


def _shares(
    grid: Grid, nodes: Sequence[int], experiment: Experiment, masked: MaskedRound, survivors: Ids
) -> dict[int, dict[int, bytes]]:
    """Return the shares that survivors reveal: by client, and then by the holder's place."""
    toml, key = experiment.to_toml(), np.frombuffer(masked.key, np.int64)
    job = Job(
        name="the removal of masks",
        clients=survivors,
        request=lambda clients: Reveal(toml, key, masked.participants, survivors, clients),
        answer=Revealed,
        check=lambda reply, _: check_revealed(reply, masked),
        timeout=experiment.server.round_timeout,
    )
    blocks = np.array_split(np.arange(len(survivors)), len(nodes))
    dealt = {node: places for node, places in zip(nodes, blocks, strict=True) if len(places)}
    shares: dict[int, dict[int, bytes]] = defaultdict(dict)
    for _, reply in answers(grid, dealt, job):
        words = reply.shares.reshape(len(reply.owners), SHARE_BYTES // 8)
        for owner, holder, share in zip(
            reply.owners.tolist(), reply.holders.tolist(), words, strict=True
        ):
            shares[owner][masked.places[holder]] = share.tobytes()
    return shares
