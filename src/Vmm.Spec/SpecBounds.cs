using System.Collections;
using Vmm.Spec.Devices;

namespace Vmm.Spec;

/// <summary>The bounds of every number and text of a spec, whichever way it came: file, command line or a frame of the daemon.</summary>
internal static class SpecBounds
{
    /// <summary>Notes each value that is outside the bounds of its field, unless something is noted there already.</summary>
    internal static void Check(VmSpec spec, SpecComplaints check) => CheckObject(VmFields.Root, spec, "", check);

    private static void CheckObject(SpecField type, object owner, string path, SpecComplaints check)
    {
        foreach (SpecField field in type.Fields)
        {
            string at = path.Length > 0 ? $"{path}.{field.Name}" : field.Name;
            if (!field.OtherForm && field.Get(owner) is { } value)
            {
                CheckValue(field, value, at, check);
            }

            foreach (SpecField part in field.Parts)
            {
                if (part.Get(owner) is { } said)
                {
                    CheckValue(part, said, $"{at}.{part.Name}", check);
                }
            }
        }
    }

    private static void CheckValue(SpecField field, object value, string path, SpecComplaints check)
    {
        switch (field.Kind)
        {
            case SpecKind.Object:
                CheckObject(field, value, path, check);
                break;
            case SpecKind.List when field.Item is null:
                int at = 0;
                foreach (object item in (IEnumerable)value)
                {
                    CheckObject(field.Kinds is null ? field : KindOf(item), item, $"{path}[{at++}]", check);
                }

                break;
            case SpecKind.Number:
                Require((long)value >= field.Min && (long)value <= field.Max, path, $"{value}, expected {field.Min} to {field.Max}", check);
                break;
            case SpecKind.Percent:
                Require(
                    (int)value >= field.Min && (int)value <= field.Max, path, $"{value}%, expected {field.Min}% to {field.Max}%", check);
                break;
            case SpecKind.Text or SpecKind.Path:
                Require(!((string)value).Contains('\0', StringComparison.Ordinal), path, "contains a zero character", check);
                break;
        }
    }

    private static SpecField KindOf(object item) => DeviceKinds.Find(((DeviceSpec)item).Kind)!.Type;

    private static void Require(bool holds, string path, string message, SpecComplaints check)
    {
        if (!holds && !check.Problems.Exists(p => string.Equals(p.Path, path, StringComparison.Ordinal)))
        {
            check.Require(false, path, message);
        }
    }
}
