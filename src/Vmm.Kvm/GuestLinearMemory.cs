namespace Vmm.Kvm;

/// <summary>Guest RAM by linear address: the guest's page tables (KVM_TRANSLATE), page by page.</summary>
internal readonly struct GuestLinearMemory(KvmVcpu vcpu, IGuestPhysicalMemory memory)
{
    private const ulong PageMask = 4095;

    /// <summary>Reads until a page is missing; answers how many bytes came.</summary>
    internal int ReadSome(ulong linear, Span<byte> destination)
    {
        int done = 0;
        while (done < destination.Length)
        {
            ulong at = unchecked(linear + (ulong)done);
            int part = (int)Math.Min((ulong)(destination.Length - done), PageMask + 1 - (at & PageMask));
            if (!vcpu.TryTranslate(at, out ulong physical) || !memory.TryRead(physical, destination.Slice(done, part)))
            {
                break;
            }

            done += part;
        }

        return done;
    }

    internal bool TryRead(ulong linear, Span<byte> destination) => ReadSome(linear, destination) == destination.Length;

    /// <summary>Writes inside one page only: what the assists write is aligned or fails.</summary>
    internal bool TryWrite(ulong linear, ReadOnlySpan<byte> source) =>
        (linear & PageMask) + (ulong)source.Length <= PageMask + 1 && vcpu.TryTranslate(linear, out ulong physical)
        && memory.TryWrite(physical, source);
}
