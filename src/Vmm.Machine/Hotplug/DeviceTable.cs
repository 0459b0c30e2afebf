namespace Vmm.Machine.Hotplug;

/// <summary>The devices that a machine has now. The list is replaced whole: it is read without the lock.</summary>
internal sealed class DeviceTable
{
    private AttachedDevice[] _all = [];

    /// <summary>Held while devices come and go. It comes before the lock of the PCI bus.</summary>
    internal Lock Gate { get; } = new();

    /// <summary>The machine is over: none comes or goes any more. Under the lock.</summary>
    internal bool IsOver { get; set; }

    /// <summary>In the order in which they came. Any thread.</summary>
    internal AttachedDevice[] All => Volatile.Read(ref _all);

    /// <summary>Under the lock, or before the guest starts.</summary>
    internal void Add(AttachedDevice device) => Volatile.Write(ref _all, [.. _all, device]);

    /// <summary>Under the lock.</summary>
    internal void Remove(AttachedDevice device) => Volatile.Write(ref _all, Array.FindAll(_all, each => !ReferenceEquals(each, device)));

    /// <summary>The disk or network device of that name.</summary>
    internal AttachedDevice? FindPluggable(string id) =>
        Array.Find(All, each => each.IsPluggable && string.Equals(each.Id, id, StringComparison.Ordinal));
}
