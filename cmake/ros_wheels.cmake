# Used as -DCMAKE_PROJECT_INCLUDE when ROS 2 comes from PyPI wheels in a virtual environment. Acts when all targets
# are defined, without a trace in CMakeLists.txt.
include_guard(GLOBAL)

# The targets of the wheels name an include directory of the machine they were built on; CMake refuses imported
# targets whose include directories are missing.
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

# The virtual environment stands in the source tree, and CMake refuses to export a target that points there, as the
# generated Python extension does with NumPy's headers. Nobody builds against these headers after the build.
function(_keep_source_tree_out_of_exports)
  get_property(targets DIRECTORY PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(directories)
      set(exported "")
      foreach(directory IN LISTS directories)
        string(FIND "${directory}" "${CMAKE_SOURCE_DIR}/" position)
        if(position EQUAL 0)
          set(directory "$<BUILD_INTERFACE:${directory}>")
        endif()
        list(APPEND exported "${directory}")
      endforeach()
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${exported}")
    endif()
  endforeach()
endfunction()

cmake_language(DEFER CALL _drop_missing_include_directories)
cmake_language(DEFER CALL _keep_source_tree_out_of_exports)
