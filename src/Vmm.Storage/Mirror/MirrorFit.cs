using Vmm.Storage.Qcow2;

namespace Vmm.Storage;

/// <summary>Which disk can become a copy of another one.</summary>
internal static class MirrorFit
{
    /// <exception cref="BlockException">This one cannot.</exception>
    internal static void Check(IDiskBackend source, IDiskBackend target, bool sameBases)
    {
        (BlockGeometry from, BlockGeometry to) = (source.Geometry, target.Geometry);
        string? wrong = to.CapacityBytes != from.CapacityBytes
                ? $"it has {to.CapacityBytes} bytes, and the disk has {from.CapacityBytes}"
            : to.LogicalBlockSize > from.LogicalBlockSize
                ? $"its blocks have {to.LogicalBlockSize} bytes, and those of the disk have {from.LogicalBlockSize}"
            : to.ReadOnly ? "it is read-only"
            : sameBases && !HaveSameBases(source, target) ? "it does not stand on the images that the disk stands on"
            : null;
        if (wrong is not null)
        {
            throw new BlockException(BlockErrorKind.BadSize, $"the target cannot become a copy of the disk: {wrong}");
        }
    }

    private static bool HaveSameBases(IDiskBackend source, IDiskBackend target) => source is Qcow2Disk from && target is Qcow2Disk to
        && from.Layers.Skip(1).Select(PlaceOf).SequenceEqual(to.Layers.Skip(1).Select(PlaceOf));

    private static (string Path, ImageFormat Format) PlaceOf(ImageLayer layer) => (layer.File.Path, layer.Format);
}
