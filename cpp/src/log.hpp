// log.hpp - what the engine has to say to an operator.
#pragma once

#include <cstdint>
#include <string_view>

namespace offgil::log {

enum class level : std::uint8_t { debug, info, warn, error, off };

// Writes one line to standard error, from any thread. The environment variable OFFGIL_LOG (debug, info, warn,
// error, off) says from which level on; warn by default, and after a complaint where it names none of these.
//
// Never blocks and never takes the GIL: when standard error does not take a line at once, the line waits with
// up to 255 others for the next one, the oldest making room; lost lines are counted.
void write(level at, std::string_view message) noexcept;

bool enabled(level at) noexcept;

// Lines lost since the process began.
std::uint64_t dropped() noexcept;

}  // namespace offgil::log
