using System.Globalization;
using Vmm.Devices.Pci;
using Vmm.Machine.Kinds;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Description;

/// <summary>Checks a description that was read: what does not hold together is refused, with what it is.</summary>
internal static class DescriptionCheck
{
    private const ulong MostAddress = 1UL << 52; // x86 has no wider physical addresses

    /// <exception cref="InvalidDataException">No machine could be like that.</exception>
    internal static void Check(MachineDescription machine)
    {
        IReadOnlyList<VnodeSpec> vnodes = machine.Spec.EffectiveVnodes;
        Require(machine.Vcpus.Count == machine.Spec.Cpus, $"it has {machine.Vcpus.Count} vCPUs, and its spec {machine.Spec.Cpus}");
        Require(machine.Vcpus.Select(vcpu => vcpu.ApicId).Distinct().Count() == machine.Vcpus.Count, "two vCPUs have the same APIC id");
        Require(machine.Vcpus.All(vcpu => vcpu.Vnode >= 0 && vcpu.Vnode < vnodes.Count), "a vCPU is in a vnode that does not exist");
        CheckExtents(machine, vnodes);
        Require(machine.Bridges >= 0 && machine.Bridges <= machine.Pci.Most, $"it has {machine.Bridges} PCI bridges or ports");
        Require(
            machine.NextDisk >= machine.Spec.Disks.Count && machine.NextNet >= machine.Spec.Nets.Count,
            "it counts fewer disks or network devices than it has");
        CheckDevices(machine, vnodes);
    }

    private static void CheckExtents(MachineDescription machine, IReadOnlyList<VnodeSpec> vnodes)
    {
        Require(machine.Ram.Count > 0 && machine.Ram[0].Start.Value == 0, "it has no memory at address 0");
        ulong[] boot = new ulong[vnodes.Count], hot = new ulong[vnodes.Count];
        ulong next = 0;
        int count = 0;
        foreach (RamExtent extent in machine.Ram.Concat(machine.Hot))
        {
            bool isHot = count++ >= machine.Ram.Count;
            string where = $"memory at {extent.Start}";
            Require(extent.Vnode >= 0 && extent.Vnode < vnodes.Count, $"{where} is of a vnode that does not exist");
            Require(extent.Length > 0 && (extent.Start.Value | extent.Length) % ByteSize.BytesPerPage == 0, $"{where} is not whole pages");
            Require(
                extent.Start.Value >= next && extent.Start.Value < MostAddress && extent.Length <= MostAddress - extent.Start.Value,
                $"{where} is out of place");
            next = extent.Start.Value + extent.Length;
            Require(!Overlaps(extent, MemoryMap.LowRamEnd, MemoryMap.HighRamStart), $"{where} is in the window of PCI");
            Require(
                extent.Start.Value + extent.Length <= machine.PciWindow64.Start.Value || extent.Start.Value < MemoryMap.LowRamEnd,
                $"{where} is above the window of PCI");
            ulong[] found = isHot ? hot : boot;
            Require(!isHot || hot[extent.Vnode] == 0, $"{where} is a second part of what its vnode can get");
            Require(extent.BackingOffset == found[extent.Vnode], $"{where} does not follow on the memory of its vnode");
            found[extent.Vnode] += extent.Length;
        }

        for (int i = 0; i < vnodes.Count; i++)
        {
            Require(boot[i] == vnodes[i].BootMemory && hot[i] == vnodes[i].HotMemory, $"vnode {i} has not the memory that its spec says");
        }

        Require(
            machine.PciWindow64.Start.Value is >= MemoryMap.HighRamStart and < MostAddress
                && machine.PciWindow64.Length <= MostAddress - machine.PciWindow64.Start.Value,
            "its window of 64-bit PCI addresses is out of place");
    }

    private static void CheckDevices(MachineDescription machine, IReadOnlyList<VnodeSpec> vnodes)
    {
        PciSlotMap slots = new(machine.Pci);
        HashSet<int> windows = [];
        HashSet<string> ids = new(StringComparer.Ordinal);
        Dictionary<string, int> counts = new(StringComparer.Ordinal);
        foreach (DeviceDescription device in machine.Devices)
        {
            DeviceKind kind = DeviceKinds.Find(device.Kind)
                ?? throw new InvalidDataException(
                $"it has a device of kind '{Printable(device.Kind)}', which this program does not know");
            Require(IsId(device.Id), $"'{Printable(device.Id)}' is no name of a device");
            Require(ids.Add(device.Id), $"it has two devices {device.Id}");
            Require(
                device.Vnode is null || (device.Vnode >= 0 && device.Vnode < vnodes.Count),
                $"{device.Id} is near to a vnode that does not exist");
            Require(device.Pci is null != device.MmioSlot is null, $"{device.Id} is neither on PCI nor on virtio-mmio");
            Require(
                device.Pci is not { } at || slots.TryTake(at, kind.ComesAndGoes),
                $"{device.Id} is in a PCI slot that is taken or does not exist");
            bool isWindow = device.MmioSlot is not { } window || (window >= 0 && window < DeviceCount.MostMmio && windows.Add(window));
            Require(isWindow, $"{device.Id} is in a virtio-mmio window that is taken or does not exist");
            counts[kind.Name] = counts.GetValueOrDefault(kind.Name) + 1;
            CheckNumber(device, BlkKind.Name, "disk", machine.NextDisk);
            CheckNumber(device, NetKind.Name, "net", machine.NextNet);
        }

        foreach (DeviceKind kind in DeviceKinds.All)
        {
            DevicePlan[] wanted = [.. kind.Plan(machine.Spec)];
            DeviceDescription[] found = [.. machine.Devices.Where(each => string.Equals(each.Kind, kind.Name, StringComparison.Ordinal))];
            Require(wanted.Length == found.Length, $"it has {found.Length} devices of kind {kind.Name}, and its spec {wanted.Length}");
            for (int i = 0; i < found.Length; i++)
            {
                bool fits = found[i].Vnode == wanted[i].Vnode
                    && (kind.ComesAndGoes || string.Equals(found[i].Id, wanted[i].Id, StringComparison.Ordinal)); // else by the spec
                Require(fits, $"{found[i].Id} is not the device of its spec");
            }
        }
    }

    private static void CheckNumber(DeviceDescription device, string kind, string prefix, int next)
    {
        if (string.Equals(device.Kind, kind, StringComparison.Ordinal))
        {
            bool isNumbered = device.Id.StartsWith(prefix, StringComparison.Ordinal)
                && int.TryParse(device.Id.AsSpan(prefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int number)
                && number < next;
            Require(isNumbered, $"{device.Id} is no name of a device of kind {kind} that it has given");
        }
    }

    private static bool IsId(string id) =>
        id.Length is > 0 and <= 32 && id.All(c => c is (>= 'a' and <= 'z') or (>= '0' and <= '9') or '-');

    private static string Printable(string text) => new([.. text.Take(32).Select(c => c is >= ' ' and < (char)127 ? c : '?')]);

    private static bool Overlaps(RamExtent extent, ulong start, ulong end) =>
        extent.Start.Value < end && start < extent.Start.Value + extent.Length;

    private static void Require(bool holds, string problem)
    {
        if (!holds)
        {
            throw new InvalidDataException($"the machine description is damaged: {problem}");
        }
    }
}
