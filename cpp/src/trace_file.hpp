// trace_file.hpp - what a pool has done, as a file for chrome://tracing and Perfetto.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clock.hpp"
#include "span_log.hpp"

namespace offgil {

// Finished jobs brought to an event loop, any number at once.
struct delivery_span {
  unsigned loop;  // its number, in the order in which loops have come to the pool
  clock::time_point begin;
  clock::time_point end;
  std::uint64_t delivered;
};

struct trace {
  std::vector<span_log::content> workers;
  std::vector<delivery_span> deliveries;
};

// In the trace-event format. Throws std::system_error where the file cannot be written.
void write_trace(const trace& noted, const std::string& path);

}  // namespace offgil
