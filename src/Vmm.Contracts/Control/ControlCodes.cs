namespace Vmm.Contracts.Control;

/// <summary>
/// The codes of <see cref="ControlError"/>, and of the errors that the daemon itself meets with a worker. Clients see them in REST answers:
/// a code is never renamed.
/// </summary>
public static class ControlCodes
{
    /// <summary>The request is not possible in the VM's present state.</summary>
    public const string WrongState = "wrong-state";

    /// <summary>The frame, or its body, cannot be read.</summary>
    public const string BadFrame = "bad-frame";

    /// <summary>The worker does not know this kind of request: it is of an earlier release.</summary>
    public const string UnknownKind = "unknown-kind";

    /// <summary>An error that the worker has no other code for.</summary>
    public const string Internal = "internal";

    /// <summary>The daemon left while the VM was built.</summary>
    public const string Abandoned = "abandoned";

    /// <summary>The spec is not valid.</summary>
    public const string SpecInvalid = "spec-invalid";

    /// <summary>The kernel or initrd cannot be booted.</summary>
    public const string KernelInvalid = "kernel-invalid";

    /// <summary>A disk cannot be opened.</summary>
    public const string DiskOpenFailed = "disk-open-failed";

    /// <summary>A network device cannot be opened.</summary>
    public const string NetOpenFailed = "net-open-failed";

    /// <summary>A shared folder cannot be had.</summary>
    public const string ShareOpenFailed = "share-open-failed";

    /// <summary>The program that serves a device over vhost-user cannot be had.</summary>
    public const string BackEndOpenFailed = "back-end-open-failed";

    /// <summary>The host has no usable KVM.</summary>
    public const string KvmUnavailable = "kvm-unavailable";

    /// <summary>The host's kernel refused something that the VM needs.</summary>
    public const string ResourceRefused = "resource-refused";

    /// <summary>The VM does not fit this host.</summary>
    public const string HostMismatch = "host-mismatch";

    /// <summary>The disk could not be copied.</summary>
    public const string DiskCopyFailed = "disk-copy-failed";

    /// <summary>Disks could not get differencing disks.</summary>
    public const string DiskSnapshotFailed = "disk-snapshot-failed";

    /// <summary>The VM cannot be saved.</summary>
    public const string SaveFailed = "save-failed";

    /// <summary>The VM cannot be moved to another worker, or was not.</summary>
    public const string MoveFailed = "move-failed";

    /// <summary>The saved VM is damaged, or does not fit.</summary>
    public const string SavedStateRefused = "saved-state-refused";

    /// <summary>Too many consoles are open.</summary>
    public const string ConsoleLimit = "console-limit";

    /// <summary>No agent of the guest has the port open, or the VM has no such port.</summary>
    public const string NoAgent = "no-agent";

    /// <summary>Rate limits out of range.</summary>
    public const string LimitsImpossible = "limits-impossible";

    /// <summary>A memory size that the VM cannot have.</summary>
    public const string MemoryImpossible = "memory-impossible";

    /// <summary>The VM has no balloon.</summary>
    public const string NoBalloon = "no-balloon";

    /// <summary>The VM has no resident limit that could be changed.</summary>
    public const string NoResidentLimit = "no-resident-limit";

    /// <summary>The vnode cannot be moved there.</summary>
    public const string RehomeImpossible = "rehome-impossible";

    /// <summary>Another vnode is being moved.</summary>
    public const string RehomeRunning = "rehome-running";

    /// <summary>The VM has no device of that name.</summary>
    public const string NoSuchDevice = "no-such-device";

    /// <summary>The device cannot be removed while the VM runs.</summary>
    public const string NotHotpluggable = "not-hotpluggable";

    /// <summary>No PCI slot is free.</summary>
    public const string NoSlot = "no-slot";

    /// <summary>The device is being removed already.</summary>
    public const string DeviceBusy = "device-busy";

    /// <summary>Another VM has the disk open.</summary>
    public const string DiskInUse = "disk-in-use";

    /// <summary>A disk would be smaller than its guest knows it, or is.</summary>
    public const string DiskShrinks = "disk-shrinks";

    /// <summary>The disk has no size that could be given to it.</summary>
    public const string DiskNotResizable = "disk-not-resizable";

    /// <summary>The host has no space for it.</summary>
    public const string NoSpace = "no-space";

    /// <summary>The disk is in memory that cannot be accounted for.</summary>
    public const string DiskInMemory = "disk-in-memory";

    /// <summary>The worker cannot be confined as required.</summary>
    public const string NotConfined = "not-confined";

    /// <summary>There is a worker for this VM already.</summary>
    public const string AlreadyRunning = "already-running";

    /// <summary>No worker user is free.</summary>
    public const string TooManyWorkers = "too-many-workers";

    /// <summary>A worker process cannot be started.</summary>
    public const string WorkerStartFailed = "worker-start-failed";

    /// <summary>The worker, or the connection to it, is lost.</summary>
    public const string WorkerDied = "worker-died";

    /// <summary>The worker did not answer in time.</summary>
    public const string WorkerTimeout = "worker-timeout";

    /// <summary>The worker is of an earlier release and cannot do what is asked.</summary>
    public const string WorkerTooOld = "worker-too-old";

    /// <summary>The worker's answer makes no sense.</summary>
    public const string BadAnswer = "bad-answer";

    /// <summary>The request does not fit into the frames that carry it.</summary>
    public const string RequestTooLarge = "request-too-large";

    /// <summary>The request could not be sent.</summary>
    public const string RequestFailed = "request-failed";
}
