using Vmm.Machine.Resources;
using Vmm.Spec;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>Whether the disks that a machine had are those that were opened for it now.</summary>
internal static class SameDisks
{
    /// <exception cref="StateException">A disk has another format, or an image below it is another one.</exception>
    internal static void Require(VmSpec described, VmSpec spec)
    {
        IReadOnlyList<DiskSpec> had = described.Disks;
        for (int i = 0; i < Math.Min(had.Count, spec.Disks.Count); i++)
        {
            (DiskSpec before, DiskSpec now) = (had[i], spec.Disks[i]);
            IReadOnlyList<BackingSpec> backing = before.Backing ?? [], present = now.Backing ?? [];
            if (before.Format != now.Format)
            {
                throw new StateException(
                    $"The disk {before.Path} was saved as {Names.Of(before.Format)}, and is opened as {Names.Of(now.Format)}.");
            }

            if (!backing.SequenceEqual(present))
            {
                throw new StateException($"The disk {before.Path} was rebased since: {DiskFiles.Difference(backing, present)}.");
            }
        }
    }
}
