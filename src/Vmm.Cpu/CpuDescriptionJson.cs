using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Vmm.Cpu;

/// <summary>
/// A <see cref="CpuDescription"/> as JSON. Numbers are hexadecimal texts, as manuals have them; what is read is untrusted.
/// </summary>
public static class CpuDescriptionJson
{
    private const int MostLeaves = 1024, MostMsrs = 256, LongestModel = 4096;

    /// <summary>Indented JSON.</summary>
    public static string Write(CpuDescription description)
    {
        using MemoryStream bytes = new();
        using (Utf8JsonWriter json = new(bytes, new JsonWriterOptions { Indented = true }))
        {
            json.WriteStartObject();
            json.WriteNumber("version", description.Version);
            json.WriteString("model", description.Model);
            json.WriteStartArray("cpuid");
            foreach (CpuidLeaf leaf in description.Leaves)
            {
                json.WriteStartObject();
                json.WriteString("leaf", Hex(leaf.Leaf));
                json.WriteNumber("subleaf", leaf.Subleaf);
                json.WriteBoolean("hasSubleaves", leaf.HasSubleaves);
                json.WriteString("eax", Hex(leaf.Eax));
                json.WriteString("ebx", Hex(leaf.Ebx));
                json.WriteString("ecx", Hex(leaf.Ecx));
                json.WriteString("edx", Hex(leaf.Edx));
                json.WriteEndObject();
            }

            json.WriteEndArray();
            json.WriteStartArray("msrs");
            foreach (CpuMsr msr in description.Msrs)
            {
                json.WriteStartObject();
                json.WriteString("index", Hex(msr.Index));
                json.WriteString("value", string.Create(CultureInfo.InvariantCulture, $"0x{msr.Value:x}"));
                json.WriteEndObject();
            }

            json.WriteEndArray();
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(bytes.ToArray());
    }

    /// <summary>Reads one back.</summary>
    /// <exception cref="InvalidDataException">It is none, or of another version.</exception>
    public static CpuDescription Read(string text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            JsonElement root = document.RootElement;
            int version = root.GetProperty("version").GetInt32();
            if (version != CpuDescription.CurrentVersion)
            {
                throw new InvalidDataException(
                    $"the CPU description is of version {version}, this program knows {CpuDescription.CurrentVersion}");
            }

            string model = root.GetProperty("model").GetString() ?? "";
            JsonElement cpuid = root.GetProperty("cpuid"), msrs = root.GetProperty("msrs");
            if (model.Length > LongestModel || cpuid.GetArrayLength() > MostLeaves || msrs.GetArrayLength() > MostMsrs)
            {
                throw new InvalidDataException("the CPU description is too long");
            }

            CpuDescription read =
                new() { Model = model, Leaves = [.. cpuid.EnumerateArray().Select(Leaf)], Msrs = [.. msrs.EnumerateArray().Select(Msr)] };
            return read.Leaves.DistinctBy(l => (l.Leaf, l.Subleaf)).Count() == read.Leaves.Count
                ? read
                : throw new InvalidDataException("the CPU description has a leaf twice");
        }
        catch (Exception cause) when (cause is JsonException or KeyNotFoundException or InvalidOperationException or FormatException
            or OverflowException)
        {
            throw new InvalidDataException($"no CPU description: {cause.Message}", cause);
        }
    }

    private static CpuidLeaf Leaf(JsonElement json) => new(
        Word(json, "leaf"), json.GetProperty("subleaf").GetUInt32(), json.GetProperty("hasSubleaves").GetBoolean(),
        Word(json, "eax"), Word(json, "ebx"), Word(json, "ecx"), Word(json, "edx"));

    private static CpuMsr Msr(JsonElement json) => new(Word(json, "index"), Number(json, "value"));

    private static uint Word(JsonElement json, string name) => checked((uint)Number(json, name));

    private static ulong Number(JsonElement json, string name)
    {
        string text = json.GetProperty(name).GetString() ?? "";
        return text.StartsWith("0x", StringComparison.Ordinal)
            ? ulong.Parse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture)
            : throw new FormatException($"{name} is not a hexadecimal number");
    }

    private static string Hex(uint value) => string.Create(CultureInfo.InvariantCulture, $"0x{value:x8}");
}
