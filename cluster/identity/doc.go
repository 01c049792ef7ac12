// Package identity is who a machine is in a cluster, and how it proves it: the certificate authority, the certificates of
// nodes and users, join tokens, and the directory in which a node keeps them.
//
// A certificate speaks for one subject, named by its only URI: cairn://node/<node id> or cairn://user/<name>. Both are
// signed by the cluster's own authority, whose key every node holds, so that any leader can sign.
//
// The package knows no Raft and opens no connection. It does not decide who is a member: a valid certificate proves a
// name, and the replicated state says whether that name still belongs to the cluster.
package identity
