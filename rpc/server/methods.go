package server

import (
	"strings"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// scope says whose things a method is about.
type scope uint8

const (
	// scopeProject: of one project. Who is bound to a project may call it, and the handler lets him see that project only.
	scopeProject scope = iota
	// scopeCluster: of the cluster. Only for those who are bound to no project.
	scopeCluster
)

// rule is what a method asks of its caller, and where it runs.
type rule struct {
	least cairn.UserRole
	scope scope
	// leader: the request is handed to the leader. So is everything that changes something, since placement needs the
	// telemetry that only the leader has, and what shows that telemetry.
	leader bool
}

const onLeader = true

// methods is every method that a user may call. A method that is missing here is refused.
var methods = map[string]rule{
	pb.ShareService_CreateShare_FullMethodName:       {cairn.UserMember, scopeProject, onLeader},
	pb.ShareService_GetShare_FullMethodName:          {cairn.UserReader, scopeProject, false},
	pb.ShareService_ListShares_FullMethodName:        {cairn.UserReader, scopeProject, false},
	pb.ShareService_DeleteShare_FullMethodName:       {cairn.UserMember, scopeProject, onLeader},
	pb.ShareService_ResizeShare_FullMethodName:       {cairn.UserMember, scopeProject, onLeader},
	pb.ShareService_RevertShare_FullMethodName:       {cairn.UserMember, scopeProject, onLeader},
	pb.ShareService_UpdateShare_FullMethodName:       {cairn.UserMember, scopeProject, onLeader},
	pb.ShareService_SetServiceAddress_FullMethodName: {cairn.UserOperator, scopeCluster, onLeader},
	pb.ShareService_ManageShare_FullMethodName:       {cairn.UserOperator, scopeCluster, onLeader},
	pb.ShareService_UnmanageShare_FullMethodName:     {cairn.UserOperator, scopeCluster, onLeader},

	pb.ReplicaService_AddReplica_FullMethodName:    {cairn.UserMember, scopeProject, onLeader},
	pb.ReplicaService_RemoveReplica_FullMethodName: {cairn.UserMember, scopeProject, onLeader},
	pb.ReplicaService_ListReplicas_FullMethodName:  {cairn.UserReader, scopeProject, onLeader},
	pb.ReplicaService_ResyncReplica_FullMethodName: {cairn.UserMember, scopeProject, onLeader},
	pb.ReplicaService_PromoteShare_FullMethodName:  {cairn.UserOperator, scopeProject, onLeader},
	pb.ReplicaService_DrillShare_FullMethodName:    {cairn.UserOperator, scopeProject, false},

	pb.SnapshotService_CreateSnapshot_FullMethodName:   {cairn.UserMember, scopeProject, onLeader},
	pb.SnapshotService_GetSnapshot_FullMethodName:      {cairn.UserReader, scopeProject, false},
	pb.SnapshotService_ListSnapshots_FullMethodName:    {cairn.UserReader, scopeProject, false},
	pb.SnapshotService_DeleteSnapshot_FullMethodName:   {cairn.UserMember, scopeProject, onLeader},
	pb.SnapshotService_ManageSnapshot_FullMethodName:   {cairn.UserOperator, scopeProject, onLeader},
	pb.SnapshotService_UnmanageSnapshot_FullMethodName: {cairn.UserOperator, scopeProject, onLeader},

	pb.AccessService_AllowAccess_FullMethodName: {cairn.UserMember, scopeProject, onLeader},
	pb.AccessService_DenyAccess_FullMethodName:  {cairn.UserMember, scopeProject, onLeader},
	pb.AccessService_SetAccess_FullMethodName:   {cairn.UserMember, scopeProject, onLeader},
	pb.AccessService_ListAccess_FullMethodName:  {cairn.UserReader, scopeProject, false},

	pb.TaskService_ListTasks_FullMethodName:  {cairn.UserReader, scopeProject, false},
	pb.TaskService_GetTask_FullMethodName:    {cairn.UserReader, scopeProject, false},
	pb.TaskService_CancelTask_FullMethodName: {cairn.UserMember, scopeProject, onLeader},

	pb.TypeService_CreateType_FullMethodName: {cairn.UserAdmin, scopeCluster, onLeader},
	pb.TypeService_ListTypes_FullMethodName:  {cairn.UserReader, scopeProject, false},
	pb.TypeService_GetType_FullMethodName:    {cairn.UserReader, scopeProject, false},
	pb.TypeService_DeleteType_FullMethodName: {cairn.UserAdmin, scopeCluster, onLeader},

	pb.QuotaService_GetQuota_FullMethodName:   {cairn.UserReader, scopeProject, false},
	pb.QuotaService_SetQuota_FullMethodName:   {cairn.UserAdmin, scopeCluster, onLeader},
	pb.QuotaService_ListQuotas_FullMethodName: {cairn.UserReader, scopeCluster, false},

	pb.EventService_ListEvents_FullMethodName:   {cairn.UserReader, scopeProject, false},
	pb.EventService_FollowEvents_FullMethodName: {cairn.UserReader, scopeProject, false},

	pb.ClusterService_GetClusterStatus_FullMethodName:   {cairn.UserReader, scopeCluster, false},
	pb.ClusterService_TransferLeadership_FullMethodName: {cairn.UserOperator, scopeCluster, onLeader},
	pb.ClusterService_Why_FullMethodName:                {cairn.UserReader, scopeProject, false},
	pb.ClusterService_ExplainPlacement_FullMethodName:   {cairn.UserReader, scopeCluster, onLeader},

	pb.NodeService_CreateNodeToken_FullMethodName: {cairn.UserAdmin, scopeCluster, onLeader},
	pb.NodeService_ListNodeTokens_FullMethodName:  {cairn.UserAdmin, scopeCluster, false},
	pb.NodeService_DeleteNodeToken_FullMethodName: {cairn.UserAdmin, scopeCluster, onLeader},
	pb.NodeService_ListNodes_FullMethodName:       {cairn.UserReader, scopeCluster, false},
	pb.NodeService_GetNode_FullMethodName:         {cairn.UserReader, scopeCluster, false},
	pb.NodeService_DrainNode_FullMethodName:       {cairn.UserOperator, scopeCluster, onLeader},
	pb.NodeService_RemoveNode_FullMethodName:      {cairn.UserAdmin, scopeCluster, onLeader},
	pb.NodeService_CheckNodeStop_FullMethodName:   {cairn.UserReader, scopeCluster, false},

	pb.PoolService_ListPools_FullMethodName:  {cairn.UserReader, scopeCluster, onLeader},
	pb.PoolService_GetPool_FullMethodName:    {cairn.UserReader, scopeCluster, onLeader},
	pb.PoolService_FreezePool_FullMethodName: {cairn.UserOperator, scopeCluster, onLeader},

	pb.UserService_CreateUser_FullMethodName: {cairn.UserAdmin, scopeCluster, onLeader},
	pb.UserService_ListUsers_FullMethodName:  {cairn.UserAdmin, scopeCluster, false},
	pb.UserService_DeleteUser_FullMethodName: {cairn.UserAdmin, scopeCluster, onLeader},

	healthpb.Health_Check_FullMethodName: {cairn.UserReader, scopeProject, false},
	healthpb.Health_List_FullMethodName:  {cairn.UserReader, scopeProject, false},
	healthpb.Health_Watch_FullMethodName: {cairn.UserReader, scopeProject, false},

	reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName:    {cairn.UserReader, scopeProject, false},
	reflectionalpha.ServerReflection_ServerReflectionInfo_FullMethodName: {cairn.UserReader, scopeProject, false},
}

// rank orders the roles.
var rank = map[cairn.UserRole]int{cairn.UserReader: 1, cairn.UserMember: 2, cairn.UserOperator: 3, cairn.UserAdmin: 4}

// isPeerMethod reports whether the method is node-to-node protocol, which only nodes may call.
func isPeerMethod(method string) bool { return strings.HasPrefix(method, "/cairn.peer.") }

// isHealthMethod reports whether the method is what nodes may call in their own name besides.
func isHealthMethod(method string) bool {
	return strings.HasPrefix(method, "/"+healthpb.Health_ServiceDesc.ServiceName+"/")
}
