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

WEBSHOP_PROMPT = """\
Buy a product in a web shop. Every reply has three parts: your thoughts in <think> and </think>, \
then notes in <summary> and </summary>, then one action: <answer>search[keywords]</answer> or \
<answer>click[button]</answer>, one of the available actions. Thoughts and older pages are \
forgotten: repeat in the notes what you need. Open a product, choose the options that are wanted, \
then buy it with click[buy now], which ends the task.

Instruction: i want a blue wool scarf, and price lower than 30.00 dollars
<think>I begin with a search.</think>
<summary>Wanted: blue wool scarf, below 30 dollars. Known: nothing.</summary>
<answer>search[blue wool scarf]</answer>
<information>Page 1 (Total results: 2)
B01SCARF00 Wool scarf for men $19.5
B02SCARF00 Silk scarf $45.0
Current available actions: [click[back to search], click[b01scarf00], click[b02scarf00]]\
</information>
[HINT]You have 9 turns left.[/HINT]
<think>The first one is of wool and cheap enough.</think>
<summary>Wanted: blue wool scarf, below 30 dollars. Known: B01SCARF00 is of wool, 19.5 \
dollars.</summary>
<answer>click[b01scarf00]</answer>
<information>Wool scarf for men
Price: $19.5
color: red | blue
Current available actions: [click[back to search], click[< prev], click[description], \
click[features], click[reviews], click[buy now], click[red], click[blue]]</information>
[HINT]You have 8 turns left.[/HINT]
<think>I choose the colour.</think>
<summary>Wanted: blue wool scarf, below 30 dollars. Known: B01SCARF00 fits, blue is chosen: buy \
it.</summary>
<answer>click[blue]</answer>

Instruction: {instruction}
Now write <think>I begin with a search.</think>, then the <summary> and the <answer>, as in the \
example."""
"""As in MEM1 (arXiv 2506.15841): thoughts are dropped, the summary is kept."""
