namespace Vmm.Machine.Kinds;

/// <summary>The table of device kinds. A new kind is a class of its own and a line here.</summary>
internal static class DeviceKinds
{
    /// <summary>All of them, in the order in which a guest finds their devices: a new kind goes to the end.</summary>
    internal static readonly DeviceKind[] All =
    [
        BlkKind.Kind,
        NetKind.Kind,
        RngKind.Kind,
        BalloonKind.Kind,
        ConsoleDeviceKind.Kind,
        VsockKind.Kind,
        MemKind.Kind,
        PmemKind.Kind,
        AgentPortKind.Kind,
        FsKind.Kind,
        VhostUserKinds.Blk,
        VhostUserKinds.Net,
    ];

    /// <summary>The kind of that name; null when there is none.</summary>
    internal static DeviceKind? Find(string name) => Array.Find(All, kind => string.Equals(kind.Name, name, StringComparison.Ordinal));
}
