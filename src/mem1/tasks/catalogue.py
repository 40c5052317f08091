"""What can be loaded without writing a file first, with size and licence: `mem1 data list`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Some tasks."""

    name: str
    load: str
    """The settings of `[tasks]` that load them."""
    size: str
    licence: str
    """Of the data; ours is MIT."""


_FLASHRAG = "hub:RUC-NLPIR/FlashRAG_datasets"

SOURCES = (
    Source(name="ledger", load='kind = "ledger"', size="endless, made from a seed", licence="MIT"),
    Source(name="needle", load='kind = "needle"', size="endless, made from a seed", licence="MIT"),
    Source(
        name="hotpot_nq",
        load='files = ["data/hotpot_nq/questions.jsonl"]',
        size="100 questions, 3,500 passages, 0.8 MB, in the repository",
        licence="CC BY-SA 4.0 and 3.0, Apache-2.0",
    ),
    Source(
        name="webshop",
        load='kind = "webshop"\nproducts = "data/webshop/items.json"\n'
        'attributes = "data/webshop/items_ins.json"',
        size="120 products, made up, in the repository",
        licence="MIT",
    ),
    Source(
        name="HotpotQA, development",
        load=f'files = ["{_FLASHRAG}/hotpotqa#dev"]',
        size="7,405 questions by FlashRAG's account, from the hub (never fetched by us)",
        licence="CC BY-SA 4.0",
    ),
    Source(
        name="Natural Questions, test",
        load=f'files = ["{_FLASHRAG}/nq#test"]',
        size="3,610 questions by FlashRAG's account, from the hub (never fetched by us)",
        licence="CC BY-SA 3.0",
    ),
    Source(
        name="2WikiMultihopQA, development",
        load=f'files = ["{_FLASHRAG}/2wikimultihopqa#dev"]',
        size="12,576 questions by FlashRAG's account, from the hub (never fetched by us)",
        licence="Apache-2.0",
    ),
    Source(
        name="MuSiQue, development",
        load=f'files = ["{_FLASHRAG}/musique#dev"]',
        size="2,417 questions by FlashRAG's account, from the hub (never fetched by us)",
        licence="CC BY 4.0",
    ),
)
