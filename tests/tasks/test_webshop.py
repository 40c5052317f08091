"""WebShop's files become the products and goals that WebShop makes of them."""

import gzip
import json
from pathlib import Path

import pytest

from mem1.errors import ConfigError, DataError
from mem1.tasks.webshop import ProductStore, WebShopConfig, goal_of, load_goals
from mem1.tasks.webshop.records import read_elements

ITEM = {
    "asin": "B000000001",
    "name": "Red Scarf",
    "category": "fashion",
    "query": " Scarves ",
    "product_category": "Clothing › Scarves",
    "full_description": "Warm.",
    "small_description": ["Wool.", "Long."],
    "pricing": "$1,005.50 to $20.00",
    "customization_options": {
        "Size": [{"value": " S/M "}, {"value": "L"}],
        "Color": [{"value": "Red"}, {"value": "Blue"}, {"value": "Navy"}],
        "fit": None,
    },
}
INS = {
    "B000000001": {
        "attributes": ["soft"],
        "instruction": "Find me scarves",
        "instruction_attributes": ["soft"],
    }
}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEM1_CACHE", str(tmp_path / "cache"))


def written(path: Path, content) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def store(tmp_path, *items, ins=None) -> ProductStore:
    attributes = written(tmp_path / "ins.json", ins) if ins is not None else None
    return ProductStore.open(written(tmp_path / "items.json", [*items]), attributes=attributes)


def test_a_product_is_read_as_webshop_reads_it(tmp_path):
    product = store(tmp_path, ITEM, ins=INS).product("B000000001")
    assert (product.title, product.query, product.attributes) == ("Red Scarf", "scarves", ("soft",))
    assert product.options == {"size": ("s | m", "l"), "color": ("red", "blue", "navy")}
    assert (product.prices, product.price_tag) == ((1005.5, 20.0), "$1005.5 to $20.0")
    assert 20 <= product.price <= 1005.5


def test_the_search_engine_sees_title_description_first_feature_and_options(tmp_path):
    (line,) = store(tmp_path, ITEM).corpus.read_text().splitlines()
    assert json.loads(line)["contents"] == (
        "red scarf warm. wool. size: s | m, l, and color: red, blue, navy"
    )


def test_what_a_product_lacks_is_as_in_webshop(tmp_path):
    lean = {k: ITEM[k] for k in ("asin", "name", "category", "query", "product_category")}
    product = store(tmp_path, lean).product("B000000001")
    assert (product.price_tag, product.options, product.bullet_points) == ("$100.0", {}, ())
    assert product.attributes == ("DUMMY_ATTR",)


def test_products_without_a_proper_asin_or_with_one_seen_before_are_passed_over(tmp_path):
    items = [{**ITEM, "asin": asin} for asin in ("nan", "B0000000012", "B2", "B1", "B2")]
    found = store(tmp_path, *items)
    assert [found[row].asin for row in range(len(found))] == ["B2", "B1"]
    assert [found.row(asin) for asin in ("B1", "B2", "B3", "")] == [1, 0, None, None]


def test_an_unknown_asin_is_named(tmp_path):
    with pytest.raises(DataError, match="no product B9"):
        store(tmp_path, ITEM).product("B9")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"name": None, "asin": "B2", "pricing": "$a.b.c"}, "product 2"),
        ({"asin": "B2"}, r"product 2: KeyError\('name'\)"),
        ("a string", "product 2"),
        ({**ITEM, "asin": "B2", "customization_options": {"color": [7]}}, "product 2"),
    ],
)
def test_a_broken_product_is_named(tmp_path, broken, said):
    with pytest.raises(DataError, match=said):
        store(tmp_path, ITEM, broken)


@pytest.mark.parametrize("text", ['[{"asin": 1}, {"as', '[{"asin": 1} {]', '[{"asin": 1}, nope]'])
def test_json_that_breaks_off_is_named_by_its_product(tmp_path, text):
    with pytest.raises(DataError, match="product 2: not JSON"):
        list(read_elements(written(tmp_path / "x.json", text)))


@pytest.mark.parametrize("text", ["", "[]", " [ ] "])
def test_a_file_without_products_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="holds no product"):
        ProductStore.open(written(tmp_path / "items.json", text))


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
@pytest.mark.parametrize("form", ["array", "indented", "lines"])
def test_a_file_is_read_in_pieces_of_any_size(tmp_path, monkeypatch, chunk, form):
    rows = [{"a": 'ü[]{},"\\'}, [], {"b": {"c": [1, None]}}]
    text = json.dumps(rows, indent=2 if form == "indented" else None, ensure_ascii=False)
    if form == "lines":
        text = "\n".join(json.dumps(row) for row in rows) + "\n"
    monkeypatch.setattr("mem1.tasks.webshop.records._CHUNK", chunk)
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert list(read_elements(path)) == list(enumerate(rows, start=1))


def test_other_attributes_make_another_store(tmp_path):
    one = store(tmp_path, ITEM, ins=INS).product("B000000001").attributes
    two = store(tmp_path, ITEM, ins={"B000000001": {"attributes": ["hard", "new"]}})
    assert (one, two.product("B000000001").attributes) == (("soft",), ("hard", "new"))


def config(tmp_path, **settings) -> WebShopConfig:
    items = written(tmp_path / "items.json", [{**ITEM, "pricing": "$15.00"}])
    ins = written(tmp_path / "ins.json", INS)
    return WebShopConfig(products=str(items), attributes=str(ins), **settings)


def test_each_combination_of_options_is_a_synthetic_goal(tmp_path):
    goals = [goal_of(task) for task in load_goals(config(tmp_path))]
    colours, sizes = ("red", "blue", "navy"), ("s | m", "l")
    assert sorted(goal.options for goal in goals) == sorted((c, s) for c in colours for s in sizes)
    (goal,) = (goal for goal in goals if goal.options == ("red", "l"))
    limit = f", and price lower than {goal.price_upper:.2f} dollars"
    assert goal.instruction == f"Find me scarves with color: red, and size: l{limit}"
    assert goal.price_upper in (30.0, 40.0, 50.0)
    assert goal.attributes == ("soft",)


def test_goals_come_in_webshops_order(tmp_path):
    ids = [task.id for task in load_goals(config(tmp_path))]
    assert [int(id[-6:]) for id in ids] == [2, 0, 3, 4, 1, 5]  # random.Random(233).shuffle
    some = load_goals(config(tmp_path, start=1, count=3), limit=2)
    assert [task.id for task in some] == ids[1:3]


def test_people_s_goals_are_those_with_attributes(tmp_path):
    wish = {
        "instruction": "a scarf.",
        "instruction_attributes": ["soft"],
        "instruction_options": [],
    }
    wishes = {"B000000001": [wish, {**wish, "instruction_attributes": []}], "B9": [wish]}
    path = written(tmp_path / "human.json", wishes)
    (task,) = load_goals(config(tmp_path, instructions=str(path)))
    goal = goal_of(task)
    assert (goal.asin, goal.options, goal.attributes) == ("B000000001", (), ("soft",))
    assert goal.instruction.startswith("a scarf, and price lower than ")
    assert task.objectives[0].question == goal.instruction


def test_a_broken_wish_is_named(tmp_path):
    path = written(tmp_path / "human.json", {"B000000001": [{"instruction": "x"}]})
    with pytest.raises(DataError, match="B000000001, instruction 1: KeyError"):
        load_goals(config(tmp_path, instructions=str(path)))


def test_what_is_too_dear_has_no_limit(tmp_path):
    items = written(tmp_path / "dear.json", [{**ITEM, "pricing": "$985.00"}])
    dear = WebShopConfig(products=str(items), attributes=config(tmp_path).attributes)
    assert {goal_of(task).price_upper for task in load_goals(dear)} == {None}


def test_settings_that_give_no_goal_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"tasks\.instructions is missing"):
        WebShopConfig(products="x")
    with pytest.raises(ConfigError, match=r"tasks\.count = 0"):
        config(tmp_path, count=0)
    with pytest.raises(ConfigError, match="has 6 goals"):
        load_goals(config(tmp_path, start=6))
    with pytest.raises(DataError, match="no such file"):
        load_goals(WebShopConfig(products="none.json", attributes="none.json"))


def test_the_shop_in_the_repository_has_a_wish_for_each_product():
    folder = Path("data/webshop")
    files = {"products": str(folder / "items.json"), "attributes": str(folder / "items_ins.json")}
    human = load_goals(WebShopConfig(**files, instructions=str(folder / "items_human_ins.json")))
    assert len({goal_of(task).asin for task in human}) == len(human) == 120
    assert len(load_goals(WebShopConfig(**files))) > 120
