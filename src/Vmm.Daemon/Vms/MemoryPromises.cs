using System.Globalization;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// The memory of this host that VMs were promised: what may be resident of each, in all at most a multiple of what the host has. A policy
/// without a clock: it knows the VMs that it is told of. Thread-safe.
/// </summary>
/// <param name="overcommit">How often the host's memory may be promised.</param>
/// <param name="host">The host's memory; zero: it is not known, and nothing is refused.</param>
internal sealed class MemoryPromises(double overcommit, Func<ByteSize> host)
{
    private readonly Dictionary<string, ulong> _starting = new(StringComparer.Ordinal); // also the lock

    /// <summary>Nothing is ever refused.</summary>
    internal static MemoryPromises Unbounded { get; } = new(1, () => ByteSize.Zero);

    /// <summary>Most that may be promised; null: that is not known.</summary>
    internal ulong? Limit => host().Bytes is > 0 and ulong bytes ? (ulong)Math.Min(bytes * overcommit, 1UL << 62) : null;

    /// <summary>
    /// What a VM is promised: its resident limit, or the memory that it starts with. What it may grow to is the balancer's to give.
    /// </summary>
    internal static ByteSize Of(VmSpec spec) => spec.Paging is null ? spec.Memory : spec.ResidentLimit;

    /// <summary>What the VMs are promised that run.</summary>
    internal static ulong Sum(IEnumerable<VmSpec> running) => running.Aggregate(0UL, (sum, spec) => sum + Of(spec));

    /// <summary>Promises a VM what its spec says. Kept until it is disposed: from then on the VM runs, or is not to.</summary>
    /// <param name="spec">The VM.</param>
    /// <param name="running">All VMs that run; it may be one of them, with another promise.</param>
    /// <exception cref="ApiException">That would be more than there may be; the message has the numbers.</exception>
    internal IDisposable Admit(VmSpec spec, IEnumerable<VmSpec> running)
    {
        ulong wanted = Of(spec);
        lock (_starting)
        {
            Dictionary<string, ulong> others = new(_starting, StringComparer.Ordinal);
            foreach (VmSpec other in running)
            {
                others[other.Name] = Math.Max(Of(other), others.GetValueOrDefault(other.Name));
            }

            others.Remove(spec.Name);
            ulong promised = others.Values.Aggregate(0UL, (sum, bytes) => sum + bytes);
            if (Limit is { } most && promised + wanted > most)
            {
                string ratio = overcommit.ToString(CultureInfo.InvariantCulture), how = spec.Paging is null ? "" : " (its resident limit)";
                throw new ApiException(409, "memory-promised", "the host's memory is promised to others",
                    $"{spec.Name} is promised {Mebibytes(wanted)}{how}: with the {Mebibytes(promised)} of {others.Count} VMs that run that "
                        + $"is more than {Mebibytes(most)}, {ratio} times the {Mebibytes(host())} of this host: stop a VM, give some a "
                        + "resident limit (memory: {resident: 25%}), or raise memory: {overcommit} in vmmd.yaml");
            }

            _starting[spec.Name] = Math.Max(wanted, _starting.GetValueOrDefault(spec.Name));
            return new Promise(this, spec.Name);
        }
    }

    private static string Mebibytes(ulong bytes) => $"{(bytes >> 20).ToString(CultureInfo.InvariantCulture)} MiB";

    private sealed class Promise(MemoryPromises promises, string vm) : IDisposable
    {
        public void Dispose()
        {
            lock (promises._starting)
            {
                promises._starting.Remove(vm);
            }
        }
    }
}
