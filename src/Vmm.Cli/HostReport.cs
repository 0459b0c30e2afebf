using System.Globalization;
using System.Text;
using System.Text.Json;
using Vmm.Cpu;
using Vmm.Memory;

namespace Vmm.Cli;

/// <summary>What <c>vmmctl host show</c> tells: the kind of KVM, the CPU models and the NUMA nodes.</summary>
/// <param name="Kvm"><c>hardware</c>, <c>emulating</c> or <c>none</c>.</param>
/// <param name="KvmProblem">Why there is none; null otherwise.</param>
/// <param name="CpuModels">CPU models that this host can run.</param>
/// <param name="Host">The host's nodes.</param>
internal sealed record HostReport(string Kvm, string? KvmProblem, IReadOnlyList<string> CpuModels, HostTopology Host)
{
    internal static HostReport Read(KvmSurvey kvm) => new(kvm.Kind, kvm.Problem, kvm.CpuModels, HostTopology.Read());

    internal void Write(TextWriter output, bool json)
    {
        if (json)
        {
            output.WriteLine(Json());
            return;
        }

        output.WriteLine($"KVM: {Kvm}{(KvmProblem is null ? "" : $" ({KvmProblem})")}");
        output.WriteLine($"CPU models: {string.Join(' ', CpuModels)}");
        output.WriteLine("NODE  CPUS          TOTAL         FREE  DISTANCES");
        foreach (HostNode node in Host.Nodes)
        {
            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{node.Id,-5} {NumberSet.Format(node.Cpus),-10} {node.TotalBytes >> 20,5} MiB {node.FreeBytes >> 20,8} MiB  "
                    + $"{string.Join(' ', node.Distances)}"));
        }
    }

    private string Json()
    {
        using MemoryStream bytes = new();
        using (Utf8JsonWriter json = new(bytes, new JsonWriterOptions { Indented = true }))
        {
            json.WriteStartObject();
            json.WriteString("kvm", Kvm);
            json.WriteString("kvmProblem", KvmProblem);
            json.WriteStartArray("cpuModels");
            foreach (string model in CpuModels)
            {
                json.WriteStringValue(model);
            }

            json.WriteEndArray();
            json.WriteStartArray("nodes");
            foreach (HostNode node in Host.Nodes)
            {
                json.WriteStartObject();
                json.WriteNumber("id", node.Id);
                json.WriteString("cpus", NumberSet.Format(node.Cpus));
                json.WriteNumber("totalBytes", node.TotalBytes);
                json.WriteNumber("freeBytes", node.FreeBytes);
                json.WriteStartArray("distances");
                foreach (int distance in node.Distances)
                {
                    json.WriteNumberValue(distance);
                }

                json.WriteEndArray();
                json.WriteEndObject();
            }

            json.WriteEndArray();
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(bytes.ToArray());
    }
}
