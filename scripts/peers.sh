# Sourced after environment.sh by the scripts that measure beside llama.cpp: its compiler flags, its environment, its server,
# and the weights that both sides get.
#
#   peers_environment EXTRA   .venv-peers with this extra, where llama-cpp-python is compiled once; sets $python
#   llama_server              sets and exports EDGEAI_LLAMA_SERVER, compiled when it names none
#   bench_weights FOLDER      sets $gguf, the Q4_1 file as published, and $package, its transcoding
#   bench_q4_0 FOLDER         sets $q4_0, the same in llama.cpp's fastest 4-bit type
#   bench_fastest FOLDER      sets $fastest, our fastest package; needs the extra dev
#
# The last three want $python to have edgeai, and make in FOLDER what EDGEAI_BENCH_PACKAGE and EDGEAI_BENCH_FASTEST do not
# name.

# Some virtual machines name AMX among the processor's features and then forbid it, where llama.cpp crashes. Without it,
# Q4_0 keeps its repacked AVX512 and AVX2 kernels.
without_amx() { [ "$(uname -m)" != x86_64 ] || printf '%s' "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"; }

peers_environment() {
    local flags
    flags=$(without_amx)
    export CMAKE_ARGS="-DCMAKE_C_FLAGS='$flags' -DCMAKE_CXX_FLAGS='$flags'"
    edgeai_environment .venv-peers "$1"
}

llama_server() {
    EDGEAI_LLAMA_SERVER=$("$root/scripts/build_llama_server")
    export EDGEAI_LLAMA_SERVER
}

bench_weights() {
    gguf=$("$python" "$root/scripts/fetch_weights.py" smollm2-135m-instruct)
    package=${EDGEAI_BENCH_PACKAGE:-$1/package}
    [ -e "$package" ] || edgeai build smollm2-135m-instruct --out "$package" >/dev/null
}

bench_q4_0() {
    q4_0=$1/Q4_0.gguf
    "$(dirname "$EDGEAI_LLAMA_SERVER")/llama-quantize" --allow-requantize "$gguf" "$q4_0" Q4_0 >/dev/null 2>&1 ||
        fail "llama-quantize could not make $q4_0"
}

bench_fastest() {
    fastest=${EDGEAI_BENCH_FASTEST:-$1/fastest}
    [ ! -e "$fastest" ] || return 0
    "$python" "$root/scripts/float_checkpoint.py" "$gguf" "$1/float" >/dev/null
    edgeai build "$1/float" --bits 4 --block-size 128 --table-bits 4 --prompt-weights --out "$fastest" >/dev/null
    rm -r "$1/float" "$1/float.gguf"
}
