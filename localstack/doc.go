// Package localstack runs what Stampede needs around it on one machine and without Docker: a real Redis, a real MariaDB
// and an SQS-compatible server, all on free ports of 127.0.0.1. The demo, "ctl up" and the tests use it; the edge and
// the worker never do.
//
// The servers are child processes. They die with the process that started them: it stops them in order when it can, and
// on Linux the kernel kills them when it was killed itself. Each is in a process group of its own, so that Ctrl-C in a
// terminal reaches only the parent.
package localstack
