// guard_library.hpp - a static library that has its own ideas of the GIL, and has never heard of offgil.
#pragma once

namespace library {

// All return x + 1, and release and take the GIL meanwhile as their names say.
int released(int x);
int acquired(int x);
int in_the_c_api(int x);

}  // namespace library
