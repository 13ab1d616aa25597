"""A model that follows a script. So the examples need no network and no key, and do the same in every run."""

from __future__ import annotations

from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer
from inspect_ai.solver import TaskState
from inspect_ai.tool import ToolChoice, ToolInfo
from inspect_ai.util import sandbox

Step = tuple[str, dict[str, Any]]
"""A call of a tool with its arguments."""


def scripted(*steps: Step) -> Model:
    """Returns a model that calls one tool after the other, and then says "done".

    It counts its turns in the conversation, so several samples can share it.
    """

    def play(input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig) -> ModelOutput:
        turn = sum(message.role == "assistant" for message in input)
        if turn < len(steps):
            tool, arguments = steps[turn]
            output = ModelOutput.for_tool_call("mockllm/model", tool, arguments)
        else:
            output = ModelOutput.from_content("mockllm/model", "done")
        # Without the usage, Inspect counts the tokens, which needs a download.
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    return get_model("mockllm/model", custom_outputs=play, memoize=False)


@scorer(metrics=[accuracy()])
def prints(command: str, service: str | None = None) -> Scorer:
    """Scores a sample as correct if a command in its sandbox prints the target."""

    async def score(state: TaskState, target: Target) -> Score:
        result = await sandbox(service).exec(["sh", "-c", command])
        return Score(value="C" if result.stdout.strip() == target.text else "I", answer=result.stdout + result.stderr)

    return score


@scorer(metrics=[accuracy()])
def tools_said() -> Scorer:
    """Scores a sample as correct if the last output of a tool, or its error, contains the target."""

    async def score(state: TaskState, target: Target) -> Score:
        answers = [message for message in state.messages if message.role == "tool"]
        text = answers[-1].text + (f" [{answers[-1].error.type}]" if answers[-1].error else "") if answers else ""
        return Score(value="C" if target.text in text else "I", answer=text)

    return score
