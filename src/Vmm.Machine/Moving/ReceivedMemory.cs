using Vmm.Interop;
using Vmm.Machine.Description;
using Vmm.Machine.Kinds;
using Vmm.Machine.Layout;
using Vmm.Machine.Numa;
using Vmm.Machine.Ram;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Machine.Moving;

/// <summary>
/// The memory of a machine that is built when its content is there. How much it is says a spec that somebody here admitted, never the
/// sender; where the guest sees it says the sender.
/// </summary>
internal sealed class ReceivedMemory : IDisposable
{
    private MachineMemory? _memory;

    private ReceivedMemory(MachineMemory memory, IReadOnlyList<VnodeHome> homes, IReadOnlyList<IMovedMemory> parts) =>
        (_memory, Homes, Parts) = (memory, homes, parts);

    /// <summary>Where its vnodes live on this host.</summary>
    internal IReadOnlyList<VnodeHome> Homes { get; }

    /// <summary>The memories, by their number in the channels: those of the start, then those that come and go.</summary>
    internal IReadOnlyList<IMovedMemory> Parts { get; }

    /// <summary>Makes the memory.</summary>
    /// <param name="description">What the sender says of the machine, checked in itself.</param>
    /// <param name="admitted">What was admitted here.</param>
    /// <param name="passed">The memory itself, by number, owned from here on, also when this throws; none: it is made, and filled.</param>
    /// <exception cref="MoveException">The two are not the same machine.</exception>
    /// <exception cref="HostMismatchException">The spec asks for what this host does not have.</exception>
    /// <exception cref="KernelException">The kernel refused memory.</exception>
    internal static ReceivedMemory Make(
        MachineDescription description, VmSpec admitted, IReadOnlyList<FileDescriptorHandle> passed)
    {
        using PassedMemory files = new(passed);
        VmSpec spec = admitted.Numa is null ? admitted : HostFit.Project(admitted, out _);
        Require(description, spec);
        HostTopology host = NumaPlacement.NeedsHost(spec) ? HostTopology.Read() : HostTopology.Unknown;
        IReadOnlyList<VnodeHome> homes = NumaPlacement.Place(spec, host);
        MachineMemory memory;
        try
        {
            memory = new MachineMemory(description.Ram, homes, host, passed.Count > 0 ? files : null);
        }
        catch (ArgumentException cause)
        {
            throw new MoveException(cause.Message, cause);
        }

        try
        {
            List<IMovedMemory> parts = [.. memory.Start.Select(each => new ReceivedPart(each.Memory, comesAndGoes: false))];
            foreach (DeviceDescription device in description.Devices.Where(
                each => string.Equals(each.Kind, MemKind.Kind.Name, StringComparison.Ordinal)))
            {
                RamExtent extent = description.Hot.First(each => each.Vnode == device.Vnode);
                parts.Add(new ReceivedPart(memory.AddHotBacking(extent), comesAndGoes: true));
            }

            if (passed.Count > 0)
            {
                files.RequireAllTaken();
                parts.Clear(); // its pages are the guest's, who goes on with them: nothing of a channel is written into them
            }

            return new ReceivedMemory(memory, homes, parts);
        }
        catch
        {
            memory.Dispose();
            throw;
        }
    }

    /// <summary>The memory, now the caller's.</summary>
    internal MachineMemory Take() =>
        Interlocked.Exchange(ref _memory, null) ?? throw new InvalidOperationException("the memory was taken already");

    /// <inheritdoc/>
    public void Dispose() => Interlocked.Exchange(ref _memory, null)?.Dispose();

    private static void Require(MachineDescription description, VmSpec spec)
    {
        IReadOnlyList<VnodeSpec> had = description.Spec.EffectiveVnodes, have = spec.EffectiveVnodes;
        if (description.Spec.Paging is not null || spec.Paging is not null)
        {
            throw new MoveException("a VM with a resident limit (memory.resident) cannot be moved");
        }

        if (description.Spec.Cpus != spec.Cpus || had.Count != have.Count)
        {
            throw new MoveException($"the VM has {description.Spec.Cpus} vCPUs in {had.Count} vnodes; "
                + $"here it was admitted with {spec.Cpus} in {have.Count}");
        }

        for (int i = 0; i < had.Count; i++)
        {
            if (had[i].BootMemory != have[i].BootMemory || had[i].HotMemory != have[i].HotMemory)
            {
                throw new MoveException(
                    $"vnode {i} of the VM has {had[i].BootMemory} at the start and {had[i].HotMemory} that comes and goes; "
                    + $"here it was admitted with {have[i].BootMemory} and {have[i].HotMemory}");
            }
        }
    }
}
