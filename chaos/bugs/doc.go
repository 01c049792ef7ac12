// Package bugs proves the tests: it plants a bug in a copy of the sources and expects a search to find it.
//
// A bug is a patch with a header that says what is wrong and which search must find it. The patched copies are compiled with
// go test -overlay, so nothing of a bug is ever in the sources, and a patch that no longer applies fails loudly. A search is a
// test that knows nothing of the bug: random histories that are judged by what must always hold.
//
//	make repro-NAME   # plants one bug and runs its search until it is found, 10 minutes at most
//	make bugs         # all patches apply and compile, and some of the bugs, other ones every day, are found
package bugs
