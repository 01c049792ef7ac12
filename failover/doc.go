// Package failover is what the leader decides about shares with replicas: which standby takes over when the node of the
// active replica is down, which promotions have taken too long, and who leaves a node that is being drained.
//
// It knows the replicated state and asks nodes how far their standbys are. It knows nothing of leases, of transport and of
// disks: a node is down if the state says so, and everything that it decides is a command, which the state machine checks
// again. DESIGN.md says why it is not a saga.
package failover
