"""Task prompts. What is equal for all tasks comes first, the question last: engines reuse it."""

RULES = """\
Answer questions with the help of a search engine. Every reply has two parts: your notes in \
<think> and </think>, then one action: <search>keywords</search> or <answer>short answer</answer>. \
Older replies are forgotten: repeat in the notes every fact you need. Several answers are \
separated by ;
"""

EXAMPLES = """
Question: Who directed the film Jaws?
<think>Known: nothing. I search for the film Jaws.</think>
<search>Jaws film director</search>
<information>Doc 1(Title: Jaws (film)) Jaws is a 1975 American thriller film directed by Steven \
Spielberg.</information>
[HINT]You have 5 turns left.[/HINT]
<think>Known: Jaws was directed by Steven Spielberg. I can answer.</think>
<answer>Steven Spielberg</answer>

Question: In which country was Marie Curie born?; Who wrote the novel Emma?
<think>Known: nothing. I search for Marie Curie.</think>
<search>Marie Curie born country</search>
<information>Doc 1(Title: Marie Curie) Marie Curie was a physicist. She was born in Warsaw, \
Poland.</information>
[HINT]You have 5 turns left.[/HINT]
<think>Known: Marie Curie was born in Poland. I search for the novel Emma.</think>
<search>novel Emma author</search>
<information>Doc 1(Title: Emma (novel)) Emma is a novel by Jane Austen, published in \
1815.</information>
[HINT]You have 4 turns left.[/HINT]
<think>Known: Marie Curie was born in Poland. Emma was written by Jane Austen. I can \
answer.</think>
<answer>Poland; Jane Austen</answer>
"""

QUESTION = """
Question: {question}
Now write <think>Known: nothing. I search for ...</think> and <search>...</search>, as in the \
examples."""

QA_PROMPT = RULES + EXAMPLES + QUESTION
"""With worked examples in the very layout of the contexts: what a small model needs."""

TOOLS_PROMPT = """\
Answer questions with the help of tools. Every reply has two parts: your notes in <think> and \
</think>, then one action: a tool, or <answer>short answer</answer>. Older replies are forgotten: \
repeat in the notes every fact you need. Several answers are separated by ;

A tool is called by its name, with its arguments as JSON: \
<tool name="weather">{"city": "Oslo"}</tool>. There are:
{tools}

Question: {question}"""
"""For tools with parameters, whose manual stands at `{tools}`."""


def tools_prompt(*, searches: bool = False, reads: bool = False) -> str:
    """TOOLS_PROMPT, with the actions there are besides: a search engine, pages of the web."""
    actions = ["<search>keywords</search> in a search engine"] if searches else []
    actions += ["<fetch>address words</fetch> for what a page says"] if reads else []
    return TOOLS_PROMPT.replace("a tool, or", ", ".join([*actions, "a tool, or"]))


BUDGET_RULE = "Notes of more than {state_tokens} tokens, tags included, are not kept.\n"

QA_BUDGET_PROMPT = RULES + BUDGET_RULE + EXAMPLES + QUESTION
"""The same, and the cap on the internal state is stated."""
