/* A program that knows nothing of glaive, with plugins that each link it and have a pack of their own. They run at the
 * same time, each in a thread. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

enum { MOST = 8, ROUNDS = 50 };

typedef struct plugin {
  int (*use)(const char* pack, const char* problem);
  const char *pack, *problem;
  int failures;
} plugin;

static void* work(void* of) {
  plugin* p = (plugin*)of;
  int i;
  for (i = 0; i < ROUNDS; ++i) p->failures += p->use(p->pack, p->problem) != 0;
  return NULL;
}

int main(int argc, char** argv) {
  plugin plugins[MOST];
  pthread_t threads[MOST];
  int i, failures = 0;
  const int count = (argc - 1) / 3;
  if (argc < 4 || (argc - 1) % 3 != 0 || count > MOST)
    return fprintf(stderr, "usage: %s {PLUGIN PACK PROBLEM}...\n", argv[0]), 2;
  for (i = 0; i < count; ++i) {
    void* const library = dlopen(argv[1 + 3 * i], RTLD_NOW | RTLD_GLOBAL);
    void* const function = library ? dlsym(library, "use") : NULL;
    if (!function) return fprintf(stderr, "%s\n", dlerror()), 1;
    *(void**)&plugins[i].use = function;
    plugins[i].pack = argv[2 + 3 * i];
    plugins[i].problem = argv[3 + 3 * i];
    plugins[i].failures = 0;
  }
  for (i = 0; i < count; ++i)
    if (pthread_create(&threads[i], NULL, work, &plugins[i])) return fprintf(stderr, "no thread to be had\n"), 1;
  for (i = 0; i < count; ++i) {
    pthread_join(threads[i], NULL);
    failures += plugins[i].failures;
  }
  printf("%d plugins, %d calls each at the same time, %d failures\n", count, ROUNDS, failures);
  return failures != 0;
}
