// A persistent pool of helper threads for short parallel sections.
//
// One section runs at a time; a second caller meanwhile runs alone. Helpers spin for a moment after a section, because
// training calls come in quick succession, then sleep. They are started on first need and never joined.
#pragma once

#include <cstddef>

namespace avistan {

// Calls `work(context)` on this thread and on up to `helpers` pool threads at once; returns when all have returned.
// `work` must be correct for any number of concurrent calls, one included, and must not throw.
void run_with_helpers(std::size_t helpers, void (*work)(void* context), void* context);

}  // namespace avistan
