// Loops compiled several times, for the vector units of several generations of x86-64; the fitting one is chosen when
// the library is loaded. Elsewhere one version is enough.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define AVISTAN_X86_LEVELS
#define AVISTAN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define AVISTAN_CLONES
#endif
