using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Rest;
using Vmm.Placement;

namespace Vmm.Daemon.Api;

/// <summary>What a route does not say about itself.</summary>
/// <param name="Summary">One line.</param>
/// <param name="Answer">JSON of the answer; null is none.</param>
/// <param name="Body">JSON of the request; null is none.</param>
/// <param name="Status">Of an answer that is no refusal.</param>
/// <param name="AnswerType">Media type of an answer that is not JSON of ours.</param>
/// <param name="IsSpec">The request is a spec in YAML.</param>
/// <param name="IsOctets">The request is octets, of which the route says how many at most.</param>
internal sealed record OpenApiEntry(
    string Summary,
    JsonTypeInfo? Answer = null,
    JsonTypeInfo? Body = null,
    string Status = "200",
    string? AnswerType = null,
    bool IsSpec = false,
    bool IsOctets = false);

/// <summary>Summaries, bodies and answers by method and pattern.</summary>
internal static class OpenApiTable
{
    private static readonly RestJson s_json = RestJson.Default;

    private static readonly Dictionary<string, OpenApiEntry> s_routes = new(StringComparer.Ordinal)
    {
        ["GET /healthz"] = new("Whether the daemon answers", AnswerType: "text/plain"),
        ["GET /metrics"] = new("Prometheus text", AnswerType: "text/plain"),
        ["GET /openapi/v1.json"] = new("This document", AnswerType: "application/json"),
        ["GET /host"] = new("The daemon's host", s_json.HostInfo),
        ["GET /host/numa"] = new("The host's NUMA nodes and who sits there", s_json.HostNuma),
        ["POST /host/fit"] =
            new("How the vnodes of a spec would lie on the host now; nothing is started", s_json.NumaFitInfo, IsSpec: true),
        ["GET /vms/{name}/numa"] = new("Where a running VM lies on its host", s_json.VmNuma),
        ["POST /vms/{name}/vnodes/{vnode}/rehome"] =
            new("Move a vnode of a running VM to other host nodes, as a job", s_json.JobInfo, s_json.RehomeRequest, "202"),
        ["GET /schema/vm-spec.json"] = new("JSON schema of a VM spec", AnswerType: "application/schema+json"),
        ["GET /vms"] = new("All VMs", s_json.VmList),
        ["POST /vms"] = new("Create a VM; 200 when it is there already with the same spec", s_json.VmInfo, Status: "201", IsSpec: true),
        ["GET /vms/{name}"] = new("One VM", s_json.VmInfo),
        ["PUT /vms/{name}"] = new("Replace the spec of a VM that does not run", s_json.VmInfo, IsSpec: true),
        ["DELETE /vms/{name}"] = new("Forget a VM that does not run", Status: "204"),
        ["POST /vms/{name}/migrate"] =
            new("Let a VM go on on another host; a job", s_json.JobInfo, s_json.MigrateRequest, "202"),
        ["POST /migrations"] = new("Offer a VM of another host, for its vmmd", s_json.MigrationInfo, s_json.MigrationOffer),
        ["GET /migrations/{id}"] = new("Where the move of a VM from another host stands", s_json.MigrationInfo),
        ["POST /migrations/{id}/commit"] = new("Take the VM, unless it is decided otherwise", s_json.MigrationInfo),
        ["DELETE /migrations/{id}"] = new("Give the move up, unless it is decided otherwise", s_json.MigrationInfo),
        ["GET /migrations/{id}/channels/{channel}"] = new("A channel of the worker that gets the VM, as a stream", Status: "101"),
        ["PUT /vms/{name}/replica"] =
            new("Replicate a VM to another site, or change how", s_json.ReplicaInfo, s_json.ReplicaWish),
        ["GET /vms/{name}/replica"] = new("How the replication of a VM goes", s_json.ReplicaInfo),
        ["DELETE /vms/{name}/replica"] = new("End the replication of a VM; its points stay at the other site", Status: "204"),
        ["POST /vms/{name}/replica/pause"] = new("Let replication wait", s_json.ReplicaInfo, s_json.ReplicaPauseWish),
        ["POST /vms/{name}/replica/resume"] = new("Let it go on", s_json.ReplicaInfo),
        ["POST /vms/{name}/replica/sync"] =
            new("Cut now, until the point is safe at the other site; a job", s_json.JobInfo, Status: "202"),
        ["POST /vms/{name}/replica/resync"] =
            new("Compare hashes with the other site and send what differs, also after a fence; a job", s_json.JobInfo, Status: "202"),
        ["POST /vms/{name}/replica/verify"] =
            new("Compare hashes of the newest point with the other site; a job", s_json.JobInfo, Status: "202"),
        ["PUT /replication/{vm}"] =
            new("Make the replica of a VM of another host, or renew it; for its vmmd", s_json.ReplicaSiteInfo, s_json.ReplicaOffer),
        ["GET /replication/{vm}"] = new("Where the replica stands", s_json.ReplicaSiteInfo),
        ["DELETE /replication/{vm}"] = new("End the pairing; the points stay", Status: "204"),
        ["POST /replication/{vm}/points"] =
            new("Begin with a recovery point, or go on with it", s_json.ReplicaSiteInfo, s_json.ReplicaPointOffer),
        ["PUT /replication/{vm}/points/{point}/disks/{disk}"] =
            new("Bytes of a disk's delta, from an offset", s_json.ReplicaArrived, IsOctets: true),
        ["POST /replication/{vm}/points/{point}/seal"] =
            new("All of a point is there: check and arrange it, in the background", s_json.ReplicaSiteInfo),
        ["GET /replication/{vm}/trees/{disk}"] = new("Hashes of the newest point", AnswerType: "application/octet-stream"),
        ["GET /replicas"] = new("VMs that are replicated, in both directions", s_json.ReplicaList),
        ["GET /replicas/{name}"] = new("One replica of a VM of another host, with its recovery points", s_json.RecoveryInfo),
        ["DELETE /replicas/{name}"] = new("Delete a replica with its points", Status: "204"),
        ["POST /replicas/{name}/test-failover"] =
            new("Make another VM of a recovery point, beside the VM; a job", s_json.JobInfo, s_json.FailoverWish, "202"),
        ["DELETE /replicas/{name}/tests/{vm}"] = new("Remove the VM of a test failover with its disks", Status: "204"),
        ["POST /replicas/{name}/failover"] =
            new("Let the VM go on here, as it was at a recovery point; a job", s_json.JobInfo, s_json.FailoverWish, "202"),
        ["POST /replicas/{name}/commit"] = new("Make a failover final", s_json.RecoveryInfo),
        ["POST /replicas/{name}/cancel"] = new("Take a failover back; a job", s_json.JobInfo, Status: "202"),
        ["POST /replicas/{name}/verify"] =
            new("Read all of a recovery point and compare its hashes; a job", s_json.JobInfo, s_json.FailoverWish, "202"),
        ["GET /vms/{name}/spec"] = new("The spec as it was given", AnswerType: "application/yaml"),
        ["GET /vms/{name}/seed"] = new("Whether a VM has a seed for its first start", s_json.VmSeedInfo),
        ["PUT /vms/{name}/seed"] =
            new("Give a VM that does not run a seed for its first start; its content is never told", s_json.VmSeedInfo, s_json.VmSeedWish),
        ["DELETE /vms/{name}/seed"] = new("Delete the seed of a VM that does not run", Status: "204"),
        ["GET /vms/{name}/stats"] = new("Counters of a running VM", s_json.WorkerStats),
        ["GET /vms/{name}/units"] = new("Every unit of a running VM's machine and its phase", s_json.UnitList),
        ["GET /vms/{name}/agent"] = new("The guest agent of a running VM, as it answers now", s_json.GuestAgentInfo),
        ["GET /vms/{name}/guest"] = new("What the standard agent says of the guest of a running VM", s_json.GuestFacts),
        ["POST /vms/{name}/exec"] =
            new("Carry out a command in the guest of a running VM, by its standard agent", s_json.GuestExecResult, s_json.GuestExecWish),
        ["GET /vms/{name}/console"] = new("The serial console as a WebSocket", Status: "101"),
        ["GET /vms/{name}/events"] = new("What the daemon remembers about a VM", s_json.EventList),
        ["GET /vms/{name}/memory"] = new("The memory of a running VM", s_json.VmMemory),
        ["PUT /vms/{name}/memory"] = new("Change the memory of a running VM", s_json.VmMemory, s_json.MemoryWish),
        ["PUT /vms/{name}/devices/{device}/limits"] =
            new("Rate limits of a device until the next start", Body: s_json.DeviceLimits, Status: "204"),
        ["POST /vms/{name}/devices/{device}/stream"] =
            new("Bring into the top image of a running VM's disk what it sees through images below; a job", s_json.JobInfo,
                s_json.DiskStreamWish),
        ["POST /vms/{name}/devices/{device}/commit"] =
            new("Merge the images above one of a running VM's disk into it, to go on there; a job", s_json.JobInfo, s_json.DiskCommitWish),
        ["POST /vms/{name}/devices/{device}/copy"] =
            new("Copy a disk of a running VM to another storage, to go on there; a job", s_json.JobInfo, s_json.DiskCopyWish),
        ["POST /vms/{name}/backup"] =
            new("Make a point of the backup of a VM's disks in a folder of the host; a job", s_json.JobInfo, s_json.BackupRequest),
        ["POST /vms/{name}/snapshot"] =
            new("Put differencing disks on disks of a VM, all at one instant; a job", s_json.JobInfo, s_json.SnapshotWish),
        ["PUT /vms/{name}/devices/{device}/size"] =
            new("Grow a disk, also while the VM runs, or look again how large it is", s_json.DiskSize, s_json.DiskSizeWish),
        ["GET /vms/{name}/cpu"] = new("A VM's time on host CPUs", s_json.VmCpu),
        ["PUT /vms/{name}/cpu"] = new("Limit a running VM's time on host CPUs until its next start", s_json.VmCpu, s_json.CpuLimits),
        ["GET /vms/{name}/devices"] = new("Disks and network devices", s_json.DeviceList),
        ["POST /vms/{name}/disks"] = new(
            "Add a disk, also while the VM runs; the body is an entry of the spec's disks",
            s_json.DeviceInfo,
            Status: "201",
            IsSpec: true),
        ["POST /vms/{name}/nets"] = new(
            "Add a network device, also while the VM runs; the body is an entry of the spec's nets",
            s_json.DeviceInfo,
            Status: "201",
            IsSpec: true),
        ["DELETE /vms/{name}/devices/{device}"] =
            new("Remove a device, also while the VM runs, when the guest lets go of it", s_json.RemovalBody),
        ["POST /vms/{name}/start"] = new("Start a VM", s_json.VmInfo),
        ["POST /vms/{name}/stop"] = new("Stop a VM; with 'Prefer: respond-async' 202 and a job", s_json.VmInfo),
        ["POST /vms/{name}/pause"] = new("Pause a VM", s_json.VmInfo),
        ["POST /vms/{name}/resume"] = new("Let a paused VM go on", s_json.VmInfo),
        ["POST /vms/{name}/power-button"] = new("Press the power button", s_json.VmInfo),
        ["POST /vms/{name}/wake"] = new("Wake a guest that sleeps", s_json.VmInfo),
        ["POST /vms/{name}/save"] = new(
            "Write a VM that runs or is paused into a folder and end it, as a job", s_json.JobInfo, s_json.SavedFolderRequest, "202"),
        ["POST /vms/{name}/upgrade"] = new(
            "Let a VM that runs or is paused go on in a new worker, as a job", s_json.JobInfo, s_json.UpgradeRequest, "202"),
        ["POST /vms/{name}/discard-saved"] =
            new("Forget where a VM is saved, so that it can boot anew; the folder stays", s_json.VmInfo),
        ["POST /restore"] =
            new("Go on with the VM that is saved in a folder, as a job", s_json.JobInfo, s_json.RestoreRequest, "202"),
        ["GET /events"] = new("Server-sent events", AnswerType: "text/event-stream"),
        ["GET /balancer"] = new("What the balancer sees and decides", s_json.BalancerInfo),
        ["PUT /balancer"] = new("Switch the balancer, until the daemon's next start", s_json.BalancerInfo, s_json.BalancerWish),
        ["GET /pressure"] = new("How the host's memory stands, and what was taken from VMs with a resident limit", s_json.PressureInfo),
        ["GET /log"] = new("The least severe that the daemon logs", s_json.LogSettings),
        ["PUT /log"] = new("Change the log level, until the daemon's next start", s_json.LogSettings, s_json.LogSettings),
        ["GET /disks"] = new("Disks in the daemon's folder", s_json.DiskList),
        ["GET /disks/{name}"] = new("One disk", s_json.DiskInfo),
        ["POST /disks"] = new("Make a disk, as a job", s_json.JobInfo, s_json.DiskRequest, "202"),
        ["DELETE /disks/{name}"] = new("Delete a disk that no spec names", Status: "204"),
        ["GET /images"] = new("Images that the daemon keeps", s_json.ImageList),
        ["GET /images/{name}"] = new("One image", s_json.ImageInfo),
        ["POST /images"] = new("Take a file of the host in as an image, as a job", s_json.JobInfo, s_json.ImageRequest, "202"),
        ["POST /images/{name}/export"] =
            new("Write a copy of an image into a new file of the host, as a job", s_json.JobInfo, s_json.ImageExportRequest, "202"),
        ["DELETE /images/{name}"] = new("Delete an image that nothing stands on", Status: "204"),
        ["GET /networks"] = new("Private networks", s_json.NetworkList),
        ["GET /networks/{name}"] = new("One network", s_json.NetworkInfo),
        ["POST /networks"] = new("Make a private network", s_json.NetworkInfo, s_json.NetworkRequest, "201"),
        ["PUT /networks/{name}"] = new("Change a network", s_json.NetworkInfo, s_json.NetworkChange),
        ["DELETE /networks/{name}"] = new("Delete a network that no VM uses", Status: "204"),
        ["GET /jobs"] = new("Jobs of the last hour", s_json.JobList),
        ["GET /jobs/{id}"] = new("One job", s_json.JobInfo),
        ["POST /jobs/{id}/cancel"] = new("Cancel a job", s_json.JobInfo),
        ["GET /tokens"] = new("Access tokens, without their secrets", s_json.TokenList),
        ["POST /tokens"] = new("Make an access token", s_json.NewToken, s_json.TokenWish, "201"),
        ["DELETE /tokens/{id}"] = new("Revoke an access token", Status: "204"),
    };

    internal static OpenApiEntry? Find(string method, string pattern) =>
        s_routes.GetValueOrDefault(method + " " + pattern.Replace("/api/v1", "", StringComparison.Ordinal));
}
