#!/usr/bin/env bash
# MEM1-QA with Qwen2.5-7B as in the paper, by verl: on one machine, or on a Ray cluster of several.
# Never run by us: it needs GPUs (docs/verl.md).
#
#   recipes/verl/paper_qa.sh                             this machine, 8 GPUs
#   NODES=2 recipes/verl/paper_qa.sh                     on the first of two machines, after
#                                                        ray start --head            there, and
#                                                        ray start --address=HEAD:6379  on the other
#   recipes/verl/paper_qa.sh --dry-run                   check the settings, start nothing
#
# RETRIEVER is the address of its search server, which all machines must reach:
#   RETRIEVER=http://FIRST:8000/retrieve NODES=2 recipes/verl/paper_qa.sh
#
# More arguments are verl's settings: trainer.save_freq=…
set -euo pipefail
cd "$(dirname "$0")/../.."

CONFIG=${CONFIG:-configs/paper_qa.toml}
DATA=${DATA:-runs/verl/paper_qa}
PYTHON=${PYTHON:-python}
SETS=()
if [ -n "${RETRIEVER:-}" ]; then
    SETS=(--set "retriever.url=$RETRIEVER")
fi

"$PYTHON" -m mem1.cli data export "$CONFIG" "${SETS[@]}" --format verl --out "$DATA"
exec "$PYTHON" -m mem1.adapters.verl "$CONFIG" --data "$DATA" "${SETS[@]}" \
    trainer.nnodes="${NODES:-1}" trainer.n_gpus_per_node="${GPUS:-8}" \
    trainer.experiment_name=paper_qa "$@"
