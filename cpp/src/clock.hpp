// clock.hpp - the one clock of the engine.
#pragma once

#include <chrono>

namespace offgil {

using clock = std::chrono::steady_clock;

}  // namespace offgil
