# no_python_symbols.cmake - the engine knows nothing of Python: its archive asks for no symbol of the interpreter.
#
#     cmake -D NM=<nm> -D LIBRARY=<archive> -P no_python_symbols.cmake
cmake_minimum_required(VERSION 3.24)

execute_process(COMMAND "${NM}" --undefined-only "${LIBRARY}"
                OUTPUT_VARIABLE undefined ERROR_VARIABLE error RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "nm failed on ${LIBRARY}: ${error}")
endif()

# An engine has threads: an archive that asks for nothing was not read at all.
if(NOT undefined MATCHES " U ")
  message(FATAL_ERROR "nm found no undefined symbol in ${LIBRARY}")
endif()

string(REGEX MATCHALL " [Uwv] _?Py[A-Za-z_0-9]*" found "${undefined}")
if(found)
  list(REMOVE_DUPLICATES found)
  list(TRANSFORM found STRIP)
  list(JOIN found "\n  " found)
  message(FATAL_ERROR "${LIBRARY} needs Python:\n  ${found}")
endif()
