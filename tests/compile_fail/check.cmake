# Compiles FILE with CASE defined. CASE 0 must compile; any other must fail, with an error that is on a line of FILE itself and
# speaks of types, so that a missing header or a slip of the pen does not pass for what the case is about.
execute_process(
  COMMAND ${COMPILER} -std=${STANDARD} -I${ROOT} -DCASE=${CASE} -fsyntax-only ${FILE}
  RESULT_VARIABLE result ERROR_VARIABLE errors OUTPUT_QUIET)
if(CASE EQUAL 0)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "the control does not compile:\n${errors}")
  endif()
  return()
endif()
if(result EQUAL 0)
  message(FATAL_ERROR "case ${CASE} compiles, and must not")
endif()
get_filename_component(name ${FILE} NAME)
if(NOT errors MATCHES "${name}:[0-9]+:[0-9]+: error: (could not convert|conversion from|use of deleted function|cannot convert|no match|no matching|no viable|invalid operands)")
  message(FATAL_ERROR "case ${CASE} fails for another reason:\n${errors}")
endif()
