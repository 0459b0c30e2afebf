using System.Text.Json;
using System.Text.Json.Serialization;
using Vmm.LifeCycle;

namespace Vmm.Contracts.Control;

/// <summary>
/// One message between daemon and worker. Requests carry a number above 0, answers repeat it, events have 0. Daemon and worker may be of
/// different releases: the rules are at <see cref="ControlVersion"/>.
/// </summary>
public sealed record ControlFrame
{
    /// <summary>Number of the request; 0 for events.</summary>
    public required long Id { get; init; }

    /// <summary>One of <see cref="ControlKinds"/>; decides what <see cref="Body"/> is.</summary>
    public required string Kind { get; init; }

    /// <summary>Names of the descriptors that came with the frame, in their order; null is none.</summary>
    public IReadOnlyList<string>? Descriptors { get; init; }

    /// <summary>What the kind asks for; null is nothing.</summary>
    public JsonElement? Body { get; init; }

    /// <summary>How many descriptors of this request follow in frames of kind <see cref="ControlKinds.More"/>; null is none.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? MoreDescriptors { get; init; }
}

/// <summary>The kinds of frames.</summary>
public static class ControlKinds
{
    /// <summary>Answer: done; the body depends on the request.</summary>
    public const string Ok = "ok";

    /// <summary>Answer: refused or failed, body <see cref="ControlError"/>. With id 0: the frame could not even be read.</summary>
    public const string Error = "error";

    /// <summary>Event: the VM is in another state, body <see cref="StateBody"/>.</summary>
    public const string State = "state";

    /// <summary>Event: the VM is over, body <see cref="WorkerExit"/>; the worker ends after it.</summary>
    public const string Ended = "ended";

    /// <summary>More descriptors of the request with the same id; no body, no answer of its own.</summary>
    public const string More = "more";

    /// <summary>
    /// Who is there? Body <see cref="HelloRequest"/>, answer <see cref="HelloBody"/>. The first request of every connection.
    /// </summary>
    public const string Hello = "hello";

    /// <summary>
    /// Get ready for a VM that is not known yet, with the descriptor <c>kvm</c>; at most once, before <see cref="Create"/>, which then
    /// needs no <c>kvm</c>.
    /// </summary>
    public const string Prepare = "prepare";

    /// <summary>
    /// Build a VM, body <see cref="CreateBody"/>, with every descriptor it needs, and give up everything else. Answer
    /// <see cref="ConfinementBody"/>.
    /// </summary>
    public const string Create = "create";

    /// <summary>Run it for the first time.</summary>
    public const string Start = "start";

    /// <summary>Stop the vCPUs.</summary>
    public const string Pause = "pause";

    /// <summary>Let them go on.</summary>
    public const string Resume = "resume";

    /// <summary>
    /// Write the VM, which runs or is paused, into the files that come with the request (<c>saved-…</c>). Answered when they are written:
    /// the VM is at rest then, and is stopped, or told <see cref="SaveCancel"/>. After an error it is as it was before. Needs
    /// <see cref="ControlVersion.Saving"/>.
    /// </summary>
    public const string Save = "save";

    /// <summary>
    /// Give up the save that goes on, which is answered with an error, or what one has written. Answered when the VM is as it was before.
    /// </summary>
    public const string SaveCancel = "save-cancel";

    /// <summary>
    /// Begin to send the VM to another worker, body <see cref="MoveBody"/>, with its channels. Answered when that has begun. Needs
    /// <see cref="ControlVersion.Moves"/>.
    /// </summary>
    public const string Move = "move";

    /// <summary>How far the move is, answer <see cref="MoveInfo"/>; answered also while the VM is being stopped for it.</summary>
    public const string MoveStatus = "move-status";

    /// <summary>
    /// Bring the VM to rest and hand it over, body <see cref="MoveStopBody"/>, answer <see cref="MoveInfo"/>: the VM is at rest then, and
    /// is stopped, or told <see cref="MoveCancel"/>. After an error it is as it was before.
    /// </summary>
    public const string MoveStop = "move-stop";

    /// <summary>Give the move up, wherever it stands. Answered when the VM is as it was before.</summary>
    public const string MoveCancel = "move-cancel";

    /// <summary>
    /// Get a VM from another worker, body <see cref="ReceiveBody"/>, with its channels and the memory's descriptors. Answered when that has
    /// begun; a <see cref="Create"/> that follows builds the VM with what came.
    /// </summary>
    public const string Receive = "receive";

    /// <summary>How far it is, answer <see cref="ReceiveInfo"/>.</summary>
    public const string ReceiveStatus = "receive-status";

    /// <summary>Press the ACPI power button.</summary>
    public const string PowerButton = "power-button";

    /// <summary>Wake a guest that sleeps.</summary>
    public const string Wake = "wake";

    /// <summary>End the VM and the process.</summary>
    public const string Stop = "stop";

    /// <summary>Counters, answer <see cref="WorkerStats"/>.</summary>
    public const string Stats = "stats";

    /// <summary>
    /// Everything of the machine that has state and what happens to it, answer <see cref="UnitList"/>; answered also while a save hangs.
    /// </summary>
    public const string Units = "units";

    /// <summary>
    /// What memory each vnode has; body <see cref="MemoryWish"/> changes what it shall have. Answer <see cref="VmMemory"/> at once: the
    /// guest takes its time.
    /// </summary>
    public const string Memory = "memory";

    /// <summary>Where the vnodes are meant to be, and how their move stands. Answer <see cref="WorkerNuma"/>.</summary>
    public const string Numa = "numa";

    /// <summary>
    /// Move a vnode to other host nodes, body <see cref="RehomeBody"/>. The answer comes at once; <see cref="Numa"/> tells how far it is.
    /// </summary>
    public const string Rehome = "rehome";

    /// <summary>Stop the move of a vnode that goes on.</summary>
    public const string RehomeCancel = "rehome-cancel";

    /// <summary>Change the rate limits of a device, body <see cref="LimitsBody"/>.</summary>
    public const string Limits = "limits";

    /// <summary>A console; the answer carries one descriptor named <c>console</c>: a byte stream.</summary>
    public const string Console = "console";

    /// <summary>The terminal behind a console has another size, body <see cref="Control.ConsoleSize"/>.</summary>
    public const string ConsoleSize = "console-size";

    /// <summary>
    /// A stream to the standard agent of the guest, with an <see cref="AgentStreamBody"/>; the one that there was ends. Answered as
    /// <see cref="Console"/> is.
    /// </summary>
    public const string AgentStream = "agent-stream";

    /// <summary>Disks and network devices that are plugged; the answer is a <see cref="DeviceList"/>.</summary>
    public const string Devices = "devices";

    /// <summary>Plug a device in; with a <see cref="PlugBody"/> and its descriptors, the answer is a <see cref="DeviceInfo"/>.</summary>
    public const string AddDevice = "add-device";

    /// <summary>
    /// Take a device out; with an <see cref="UnplugBody"/>. Other requests go on meanwhile; the answer, a <see cref="RemovalBody"/>, comes
    /// when it is over.
    /// </summary>
    public const string RemoveDevice = "remove-device";

    /// <summary>
    /// Look again how large a disk is, or make an image larger; with a <see cref="RefreshDiskBody"/>, the answer is a
    /// <see cref="DiskSize"/>. The guest hears of what it grew by. Needs <see cref="ControlVersion.DiskGrowth"/>.
    /// </summary>
    public const string RefreshDisk = "refresh-disk";

    /// <summary>
    /// Copy a disk to another one, body <see cref="CopyDiskBody"/>, with the descriptors of the target. Answered when it has begun;
    /// <see cref="CopyStatus"/> tells how far it is. One at a time. Needs <see cref="ControlVersion.DiskCopies"/>.
    /// </summary>
    public const string CopyDisk = "copy-disk";

    /// <summary>
    /// Stream a disk, body <see cref="StreamDiskBody"/>; status and steps are those of a copy, and there is one of either at a time. The
    /// last step makes the disk go on with fewer images. Needs <see cref="ControlVersion.DiskStreams"/>.
    /// </summary>
    public const string StreamDisk = "stream-disk";

    /// <summary>
    /// Commit a disk into an image of its chain, body <see cref="CommitDiskBody"/>, with that image's descriptors to write it. Status and
    /// steps are those of a copy, and there is one of either at a time. The last step makes the disk go on in that image. Needs
    /// <see cref="ControlVersion.DiskCommits"/>.
    /// </summary>
    public const string CommitDisk = "commit-disk";

    /// <summary>How far the copy of a disk is; the answer is a <see cref="DiskCopyInfo"/>.</summary>
    public const string CopyStatus = "copy-status";

    /// <summary>Take a step of the copy that goes on, body <see cref="CopyStepBody"/>. Answered when it is done.</summary>
    public const string CopyStep = "copy-step";

    /// <summary>
    /// Put differencing disks on disks, all at one instant, body <see cref="SnapshotBody"/>, with their descriptors. Answered when it is
    /// done; an error says that nothing changed. Needs <see cref="ControlVersion.DiskSnapshots"/>.
    /// </summary>
    public const string SnapshotDisks = "snapshot-disks";

    /// <summary>
    /// Log what is written to a disk from now on, body <see cref="LogBody"/>, with the log's file as the descriptor <c>log</c>. Answered
    /// when every write is logged. Needs <see cref="ControlVersion.ChangeLogs"/>.
    /// </summary>
    public const string LogDisk = "log-disk";

    /// <summary>Log no more, body <see cref="LogBody"/>; a disk without a log stays as it is.</summary>
    public const string UnlogDisk = "unlog-disk";

    /// <summary>
    /// Whether the same body's snapshot was taken; the answer is a <see cref="SnapshotInfo"/>, behind those of all earlier requests for
    /// one.
    /// </summary>
    public const string SnapshotStatus = "snapshot-status";

    /// <summary>Event: the guest wants to reach a port of the host, with a <see cref="VsockDial"/>.</summary>
    public const string VsockDial = "vsock-dial";

    /// <summary>The answer to that, a request of its own: a <see cref="VsockDialed"/> and perhaps a descriptor.</summary>
    public const string VsockDialed = "vsock-dialed";

    /// <summary>
    /// Event: a disk wants to be connected to its server again, with a <see cref="Control.StorageDial"/>. A daemon without
    /// <see cref="ControlVersion.NbdDisks"/> ignores it.
    /// </summary>
    public const string StorageDial = "storage-dial";

    /// <summary>The answer to that, a request of its own: a <see cref="Control.StorageDialed"/> and perhaps a descriptor.</summary>
    public const string StorageDialed = "storage-dialed";

    /// <summary>
    /// Event: a device is gone, with a <see cref="RemovalBody"/>. Also for one that the guest let go of late, or by itself.
    /// </summary>
    public const string DeviceRemoved = "device-removed";

    /// <summary>Event: the host fails requests of a disk, with a <see cref="DiskErrorBody"/>; once per episode.</summary>
    public const string DiskError = "disk-error";

    /// <summary>
    /// Event: the VM is paused because a disk waits for the host, or goes on by itself, with a <see cref="DiskStallBody"/>.
    /// </summary>
    public const string DiskStalled = "disk-stalled";

    /// <summary>
    /// Event: pages of a VM with a resident limit do not go out any more, or do again, with a <see cref="PagingStoppedBody"/>; once per
    /// episode.
    /// </summary>
    public const string PagingStopped = "paging-stopped";

    /// <summary>
    /// Event: all memory of a VM that was restored lazily is there, with a <see cref="MemoryRestoreInfo"/>; once.
    /// </summary>
    public const string MemoryRestored = "memory-restored";

    /// <summary>Event: the guest told something of itself, with a <see cref="GuestEventBody"/>; each at most once.</summary>
    public const string GuestEvent = "guest-event";
}

/// <summary>Why a request was not done.</summary>
/// <param name="Code">Stable code, as in the daemon's WorkerException.</param>
/// <param name="Message">For people.</param>
public sealed record ControlError(string Code, string Message);

/// <summary>The state of a worker's VM.</summary>
public sealed record StateBody([property: JsonConverter(typeof(ControlStateConverter))] VmState State);

/// <summary>What keeps a worker in bounds.</summary>
/// <param name="Applied">Names: <c>no-new-privileges no-core-dump namespaces empty-root own-user seccomp cgroup</c>, <c>cpu-limits</c> when
/// the spec has any.</param>
/// <param name="Missing">What does not hold: name and reason.</param>
public sealed record ConfinementBody(IReadOnlyList<string> Applied, IReadOnlyList<string> Missing);

/// <summary>What a worker needs to know of its VM, apart from the descriptors.</summary>
/// <param name="VmId">The daemon's id.</param>
/// <param name="UserId">The user and group to become before the guest runs; null: stay who it is.</param>
/// <param name="Spec">The VM spec as JSON.</param>
/// <param name="Restore">True: the VM is a saved one, whose files come as descriptors. Needs <see cref="ControlVersion.Saving"/>.</param>
/// <param name="Lazily">True: its memory comes from the files while it runs. Needs <see cref="ControlVersion.LazyRestore"/>.</param>
/// <param name="Received">True: the VM is the one that came (<see cref="ControlKinds.Receive"/>). One that was paused is so: it goes on
/// with <see cref="ControlKinds.Resume"/>, any other with <see cref="ControlKinds.Start"/>.</param>
public sealed record CreateBody(
    string VmId,
    uint? UserId,
    JsonElement Spec,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] bool? Restore = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] bool? Lazily = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] bool? Received = null);
