# Sets `stage` to what DESTDIR means and `record` to the file that notes what is installed below it: the same for every
# spelling.
set(stage "$ENV{DESTDIR}")
if(stage)
  cmake_path(ABSOLUTE_PATH stage NORMALIZE)
  string(REGEX REPLACE "/$" "" stage "${stage}")
endif()
string(SHA1 name "${stage}")
set(record "${BUILD}/installed/${name}.txt")
