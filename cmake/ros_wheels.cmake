# Used as -DCMAKE_PROJECT_INCLUDE when ROS 2 comes from PyPI wheels. The targets of those wheels name an include
# directory of the machine they were built on; CMake refuses imported targets whose include directories are
# missing. This drops the missing directories when all packages have been found.
include_guard(GLOBAL)

function(_drop_missing_include_directories)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(directories)
      set(present "")
      foreach(directory IN LISTS directories)
        if(directory MATCHES "^\\$<" OR EXISTS "${directory}")
          list(APPEND present "${directory}")
        endif()
      endforeach()
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${present}")
    endif()
  endforeach()
endfunction()

cmake_language(DEFER CALL _drop_missing_include_directories)
