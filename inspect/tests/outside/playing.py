"""Runs a task of another package in Modal sandboxes, with a model that follows a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelOutput, ModelUsage, get_model
from inspect_ai.tool import ToolChoice, ToolInfo

Step = tuple[str, dict[str, Any]] | str
"""A call of a tool with its arguments, or a text."""

Turn = Step | Callable[[list[ChatMessage]], Step]
"""A step, or a function that returns one for the conversation so far."""

NAME = "mockllm/model"


def plays(*turns: Turn) -> Model:
    """Returns a model that takes one turn after the other. The sample fails if the task asks for more turns."""

    def play(input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig) -> ModelOutput:
        number = sum(message.role == "assistant" for message in input)
        assert number < len(turns), f"the script has {len(turns)} turns, and the conversation is:\n{told(input)}"
        turn = turns[number]
        step = turn(input) if callable(turn) else turn
        if isinstance(step, str):
            output = ModelOutput.from_content(NAME, step)
        else:
            output = ModelOutput.for_tool_call(NAME, *step)
        # Without the usage, Inspect counts the tokens, which needs a download.
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    model = get_model(NAME, custom_outputs=play, memoize=False)
    # Some agents count the tokens of the conversation. The model's own function needs a download for that.
    model.api.count_text_tokens = words  # type: ignore[method-assign]
    return model


async def words(text: str) -> int:
    """Counts words instead of tokens."""
    return len(text.split())


def told(conversation: list[ChatMessage]) -> str:
    """Returns the messages and errors of a conversation, for the text of a failure."""
    return "\n".join(f"{message.role}: {message.text} {getattr(message, 'error', None) or ''}" for message in conversation)


def submits(answer: str | None = None) -> Turn:
    """Returns a turn that submits this answer, or what the last tool printed."""

    def submit(conversation: list[ChatMessage]) -> Step:
        last = conversation[-1]
        assert answer is not None or last.role == "tool", told(conversation)
        return "submit", {"answer": last.text.strip() if answer is None else answer}

    return submit


def run(task: Task | Callable[..., Task], model: Model, logs: Path, **more: Any) -> EvalSample:
    """Evaluates one sample in a Modal sandbox and returns it with its scores."""
    done = evaluate(task, model=model, sandbox="modal", epochs=1, log_dir=str(logs), display="none", **more)
    assert len(done) == 1
    log = done[0]
    assert log.status == "success", log.error
    assert log.samples is not None and len(log.samples) == 1
    sample = log.samples[0]
    assert sample.error is None, sample.error
    notes = [event.data for event in sample.events if event.event == "info" and event.source == "modal"]
    assert notes and all(str(note["sandbox"]).startswith("sb-") for note in notes if isinstance(note, dict))
    return sample


def first_result(sample: EvalSample) -> str:
    """Returns what the first tool printed."""
    return next(message.text for message in sample.messages if message.role == "tool")


def score(sample: EvalSample) -> Any:
    """Returns the value of the only score."""
    assert sample.scores is not None and len(sample.scores) == 1
    return next(iter(sample.scores.values())).value
