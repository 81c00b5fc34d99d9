"""Libraries with the BridgeStan C ABI that are written by hand: tests of the compiled engine without BridgeStan.

A toy is a density of one's own in C++. It notices when two of its calls overlap, which a library built without
STAN_THREADS does not survive: it has a single autodiff stack.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_COMMON = r"""
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

namespace {
int inside = 0, overlaps = 0, calls = 0;
int add(int& counter, int by) { return __atomic_fetch_add(&counter, by, __ATOMIC_SEQ_CST); }
double microseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e6 * now.tv_sec + 1e-3 * now.tv_nsec;
}
struct Call {
  Call() {
    add(calls, 1);
    if (add(inside, 1) != 0) add(overlaps, 1);
    for (const double end = microseconds() + SPIN; microseconds() < end;) {}
    if (add(inside, 0) != 1) add(overlaps, 1);
  }
  ~Call() { add(inside, -1); }
};
struct Data {
  std::string json;
  double number(const char* name) const {
    const std::string key = std::string("\"") + name + "\":";
    const std::size_t at = json.find(key);
    return at == std::string::npos ? NAN : std::strtod(json.c_str() + at + key.size(), nullptr);
  }
};
int refuse(char** error, const std::string& words) {
  if (error != nullptr) *error = strdup(words.c_str());
  return -1;
}
void (*print)(const char*, int) = nullptr;
}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT const int bs_major_version = 2, bs_minor_version = 9, bs_patch_version = 0;
EXPORT int toy_overlaps() { return overlaps; }
EXPORT int toy_calls() { return calls; }

// ---- the program: q unconstrained, x constrained
namespace {
DENSITY
}

EXPORT Data* bs_model_construct(const char* json, unsigned, char** error) {
  Call call;
  Data* data = new Data{json == nullptr ? "" : json};
  const std::string refusal = toy_refusal(*data);
  if (!refusal.empty()) {
    delete data;
    refuse(error, refusal);
    return nullptr;
  }
  return data;
}
EXPORT void bs_model_destruct(Data* data) { delete data; }
EXPORT void bs_free_error_msg(char* message) { std::free(message); }
EXPORT const char* bs_model_info(const Data*) { return INFO; }
EXPORT const char* bs_name(const Data*) { return NAME; }
EXPORT const char* bs_param_names(const Data*, bool tp, bool gq) {
  if (tp) return gq ? PARAMETERS TRANSFORMED GENERATED : PARAMETERS TRANSFORMED;
  return gq ? PARAMETERS GENERATED : PARAMETERS;
}
EXPORT const char* bs_param_unc_names(const Data*) { return UNCONSTRAINED; }
EXPORT int bs_param_num(const Data*, bool, bool) { return X; }
EXPORT int bs_param_unc_num(const Data*) { return D; }
EXPORT int bs_param_constrain(const Data* data, bool tp, bool gq, const double* q, double* x, void*, char**) {
  Call call;
  toy_constrain(*data, q, x);
  if (tp && gq && OUTPUTS > 0) toy_outputs(*data, q, x + X);
  return 0;
}
EXPORT int bs_param_unconstrain(const Data* data, const double* x, double* q, char**) {
  Call call;
  toy_unconstrain(*data, x, q);
  return 0;
}
EXPORT int bs_log_density_gradient(const Data* data, bool, bool jacobian, const double* q, double* lp, double* gradient,
                                   char** error) {
  Call call;
  const std::string rejection = toy_density(*data, q, jacobian, lp, gradient);
  return rejection.empty() ? 0 : refuse(error, "log_density_gradient() failed with exception: " + rejection);
}
EXPORT void* bs_rng_construct(unsigned, char**) { return new int(1); }
EXPORT void bs_rng_destruct(void* rng) { delete static_cast<int*>(rng); }
EXPORT int bs_set_print_callback(void (*callback)(const char*, int), char**) {
  print = callback;
  return 0;
}
"""

_NO_OUTPUTS = "void toy_outputs(const Data&, const double*, double*) {}"
_UNBOUNDED = """
std::string toy_refusal(const Data&) { return ""; }
void toy_constrain(const Data&, const double* q, double* x) { std::memcpy(x, q, D * sizeof(double)); }
void toy_unconstrain(const Data&, const double* x, double* q) { std::memcpy(q, x, D * sizeof(double)); }
"""

INFO = "BridgeStan version: 2.9.0\nStan version: 2.39.0\nStan C++ Defines:\n\tSTAN_THREADS={threads}\n"


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A program by hand.

    Attributes:
        density: C++: `std::string toy_density(const Data& data, const double* q, bool jacobian, double* lp, double*
            gradient)`, whose text is a rejection's. `data.number("sd")` reads a number of the data. Where parameters
            are bounded, also `toy_constrain`, `toy_unconstrain`, `toy_refusal` (see `_UNBOUNDED`).
        names: constrained, as `bs_param_names` gives them.
        spin: microseconds that a call takes at least.
    """

    density: str
    names: tuple[str, ...]
    unconstrained: tuple[str, ...] | None = None
    transformed: tuple[str, ...] = ()
    generated: tuple[str, ...] = ()
    name: str = "toy_model"
    threads: bool = True
    info: str | None = None
    spin: int = 0

    @property
    def source(self) -> str:
        free = self.names if self.unconstrained is None else self.unconstrained
        info = INFO.format(threads="true" if self.threads else "false") if self.info is None else self.info
        words = {
            "INFO": info,
            "NAME": self.name,
            "PARAMETERS": ",".join(self.names),
            "TRANSFORMED": "".join(f",{name}" for name in self.transformed),
            "GENERATED": "".join(f",{name}" for name in self.generated),
            "UNCONSTRAINED": ",".join(free),
        }
        outputs = len(self.transformed) + len(self.generated)
        numbers = {"X": len(self.names), "D": len(free), "OUTPUTS": outputs, "SPIN": self.spin}
        quoted = {
            name: '"' + text.replace("\n", "\\n").replace("\t", "\\t") + '"' for name, text in words.items()
        }
        defines = "".join(f"#define {name} {value}\n" for name, value in (numbers | quoted).items())
        whole = self.density if "toy_constrain" in self.density else _UNBOUNDED + self.density
        whole += "" if "toy_outputs" in whole else _NO_OUTPUTS
        return defines + _COMMON.replace("DENSITY", whole)


def compiler() -> str | None:
    """The C++ compiler, if there is one."""
    return shutil.which(os.environ.get("CXX", "c++"))


def build(toy: Toy, folder: Path) -> Path:
    """The library of a toy in `folder`; equal toys are compiled once."""
    command = compiler()
    assert command is not None
    built = folder / f"{hashlib.sha256(toy.source.encode()).hexdigest()[:16]}.so"
    if not built.exists():
        source = built.with_suffix(".cpp")
        source.write_text(toy.source)
        subprocess.run(
            [command, "-std=c++17", "-O0", "-shared", "-fPIC", "-o", str(built), str(source)],
            check=True,
        )
    return built


def overlaps(path: Path) -> tuple[int, int]:
    """How many calls of a library overlapped with others, and how many there were."""
    library = ctypes.CDLL(str(path))
    return int(library.toy_overlaps()), int(library.toy_calls())
