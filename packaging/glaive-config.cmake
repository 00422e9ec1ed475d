# find_package(glaive [version] [COMPONENTS runtime static tool]) gives
#   glaive::runtime   libglaive as a shared library, and its headers: what a program links
#   glaive::static    the same as an archive, for projects with the language CXX, whose library it needs
#   glaive::tool      the command, for add_custom_command()
# Without COMPONENTS: those that are installed, the runtime at least.
set(glaive_wanted ${glaive_FIND_COMPONENTS})
if(NOT glaive_wanted)
  set(glaive_wanted runtime static tool)
  set(glaive_FIND_REQUIRED_runtime TRUE)
endif()

foreach(glaive_component ${glaive_wanted})
  set(glaive_why)
  if(NOT glaive_component MATCHES "^(runtime|static|tool)$")
    set(glaive_why "glaive has no component '${glaive_component}': there are runtime, static and tool")
  elseif(NOT EXISTS ${CMAKE_CURRENT_LIST_DIR}/glaive-${glaive_component}.cmake)
    set(glaive_why "the component '${glaive_component}' of glaive is not installed with this package")
  endif()
  if(NOT glaive_why)
    include(${CMAKE_CURRENT_LIST_DIR}/glaive-${glaive_component}.cmake)
    set(glaive_${glaive_component}_FOUND TRUE)
  else()
    set(glaive_${glaive_component}_FOUND FALSE)
    if(glaive_FIND_REQUIRED_${glaive_component})
      set(glaive_FOUND FALSE)
      set(glaive_NOT_FOUND_MESSAGE "${glaive_why}")
    endif()
  endif()
endforeach()
